"""State dicts of CLIP in the layouts they are published in, to ours and back.

Layouts: `openai` (the original archives; open_clip uses the same names, some models with a `text.` prefix)
and `huggingface` (`transformers.CLIPModel` and `CLIPVisionModelWithProjection`). Everything here is a pure
function of a state dict; files, names and the hub are the business of `weights.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from headclip.clip.config import CELLS, Activation, ClipConfig, TextConfig, VisionConfig
from headclip.clip.rarity import signals
from headclip.errors import BackboneError

Layout = Literal["openai", "huggingface"]
Shape = tuple[int, ...]

INITIAL_LOGIT_SCALE = 2.6593  # log(1 / 0.07): what a vision-only state dict, which has none, is given
HEAD_DIM = 64  # of every tower that OpenAI released, and of open_clip's up to ViT-L
_WIDEST_WITH_HEAD_DIM_64 = 1024

# ours -> (openai, huggingface); a name that ends in "." stands for all that begin with it.
_TOWER_NAMES: dict[str, tuple[str, str]] = {
    "vision.class_embedding": ("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    "vision.patch_embedding.": ("visual.conv1.", "vision_model.embeddings.patch_embedding."),
    "vision.detail.": ("visual.detail.", "vision_model.embeddings.detail."),  # of ours alone
    "vision.position_embedding": (
        "visual.positional_embedding",
        "vision_model.embeddings.position_embedding.weight",
    ),
    "vision.ln_pre.": ("visual.ln_pre.", "vision_model.pre_layrnorm."),  # the layout's own spelling
    "vision.ln_post.": ("visual.ln_post.", "vision_model.post_layernorm."),
    "vision.projection": ("visual.proj", "visual_projection.weight"),
    "vision.blocks.": ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    "text.token_embedding.": ("token_embedding.", "text_model.embeddings.token_embedding."),
    "text.position_embedding": ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    "text.ln_final.": ("ln_final.", "text_model.final_layer_norm."),
    "text.projection": ("text_projection", "text_projection.weight"),
    "text.blocks.": ("transformer.resblocks.", "text_model.encoder.layers."),
    "logit_scale": ("logit_scale", "logit_scale"),
}
_BLOCK_NAMES: dict[str, tuple[str, str]] = {
    ".ln_1.": (".ln_1.", ".layer_norm1."),
    ".ln_2.": (".ln_2.", ".layer_norm2."),
    ".attn.qkv.": (".attn.in_proj_", ".self_attn.{}_proj."),
    ".attn.out.": (".attn.out_proj.", ".self_attn.out_proj."),
    ".mlp.fc.": (".mlp.c_fc.", ".mlp.fc1."),
    ".mlp.proj.": (".mlp.c_proj.", ".mlp.fc2."),
}
_TRANSPOSED_IN_HUGGINGFACE = ("vision.projection", "text.projection")
_OPENAI_EXTRAS = (
    "input_resolution",
    "context_length",
    "vocab_size",
    "attn_mask",
)  # facts and masks, no weights
_CUSTOM_TEXT = (
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "attn_mask",
)


def expected_shapes(config: ClipConfig) -> dict[str, Shape]:
    """Name and shape of every tensor in our layout for that configuration."""
    vision, text, embed = config.vision, config.text, config.embed_dim
    width = vision.width
    shapes: dict[str, Shape] = {
        "vision.class_embedding": (width,),
        "vision.patch_embedding.weight": (width, 3, vision.patch_size, vision.patch_size),
        **_detail_shapes(vision),
        "vision.position_embedding": (1 + vision.grid**2, width),
        **_norm_shapes("vision.ln_pre", width),
        **_norm_shapes("vision.ln_post", width),
        "vision.projection": (width, embed),
        **_block_shapes("vision", vision),
        "logit_scale": (),
    }
    if text is not None:
        shapes |= {
            "text.token_embedding.weight": (text.vocab_size, text.width),
            "text.position_embedding": (text.context_length, text.width),
            **_norm_shapes("text.ln_final", text.width),
            "text.projection": (text.width, embed),
            **_block_shapes("text", text),
        }
    return shapes


def _detail_shapes(vision: VisionConfig) -> dict[str, Shape]:
    if not vision.detail:
        return {}
    cell = vision.patch_size // CELLS
    rarity = {"vision.detail.rarity.mix": (vision.width, signals(vision.detail))}
    return {
        **(rarity if vision.rarity else {}),
        "vision.detail.filters.weight": (vision.detail, 3, cell, cell),
        "vision.detail.filters.bias": (vision.detail,),
        "vision.detail.mix": (vision.width, vision.detail * CELLS**2),
    }


def _norm_shapes(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _block_shapes(tower: str, config: VisionConfig | TextConfig) -> dict[str, Shape]:
    width, hidden = config.width, int(config.width * config.mlp_ratio)
    linears = {"attn.qkv": (3 * width, width), "attn.out": (width, width)}
    linears |= {"mlp.fc": (hidden, width), "mlp.proj": (width, hidden)}
    shapes: dict[str, Shape] = {}
    for i in range(config.layers):
        block = f"{tower}.blocks.{i}"
        shapes |= _norm_shapes(f"{block}.ln_1", width) | _norm_shapes(f"{block}.ln_2", width)
        for name, (rows, columns) in linears.items():
            shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
    return shapes


def source_names(name: str, layout: Layout) -> list[str]:
    """Names under which a tensor of ours is stored: three if queries, keys and values are apart, else one."""
    column = 0 if layout == "openai" else 1
    for ours, theirs in _TOWER_NAMES.items():
        if name == ours or (ours.endswith(".") and name.startswith(ours)):
            name = theirs[column] + name[len(ours) :]
            break
    for ours, theirs in _BLOCK_NAMES.items():  # no name outside the blocks contains any of these
        if ours in name:
            name = name.replace(ours, theirs[column])
            break
    return [name.format(part) for part in "qkv"] if "{}" in name else [name]


def detect_layout(names: Iterable[str]) -> Layout:
    """Which layout these tensor names are in.

    Raises:
        BackboneError: none that is known; the message says what the file looks like.
    """
    known = set(names)
    if "visual.conv1.weight" in known and "visual.class_embedding" in known:
        return "openai"
    if "vision_model.embeddings.class_embedding" in known:
        return "huggingface"
    if any(name.startswith("visual.layer1.") for name in known):
        raise BackboneError("this is a CLIP with a ResNet vision tower; only vision transformers are supported")
    if any(name.startswith("visual.trunk.") for name in known):
        raise BackboneError("this checkpoint has a vision tower of timm; only CLIP's own ViT is supported")
    raise BackboneError(f"no CLIP weights in a layout that is known; the file begins with {_some(sorted(known))}")


def unwrap(content: Any) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: without a training wrapper, `module.` and `text.` prefixes.

    Raises:
        BackboneError: there are no named tensors in it.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise BackboneError(f"the file holds a {type(content).__name__}, not a state dict of CLIP weights")
    state = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not state:
        raise BackboneError("the file holds no tensors")
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    custom = tuple(f"text.{name}" for name in _CUSTOM_TEXT)
    return {name.removeprefix("text.") if name.startswith(custom) else name: v for name, v in state.items()}


def to_ours(state: Mapping[str, Tensor], config: ClipConfig, layout: Layout | None = None) -> dict[str, Tensor]:
    """A published state dict in our layout, in the precision that it is stored in.

    Tensors are views of the given ones wherever the layouts agree.

    Raises:
        BackboneError: tensors are missing, left over or of another shape than `config` asks for; the message
            counts each kind and names a few.
    """
    layout = layout or detect_layout(state)
    shapes = expected_shapes(config)
    left = {name for name in state if name not in _OPENAI_EXTRAS and not name.endswith(".position_ids")}
    missing: list[str] = []
    wrong: list[str] = []
    result: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        sources = source_names(name, layout)
        if name == "logit_scale" and config.text is None:
            left.discard(name)
            result[name] = state.get(name, torch.tensor(INITIAL_LOGIT_SCALE)).reshape(())
            continue
        absent = [source for source in sources if source not in state]
        left.difference_update(sources)
        if absent:
            missing += absent
            continue
        value = _gather(name, [state[source] for source in sources], layout)
        if value is None or tuple(value.shape) != shape:
            found = " + ".join(str(tuple(state[source].shape)) for source in sources)
            wrong.append(f"{sources[0]} is {found}, which does not give {shape}")
        else:
            result[name] = value
    _refuse(missing, wrong, sorted(left), config)
    return result


def _gather(name: str, parts: list[Tensor], layout: Layout) -> Tensor | None:
    """One tensor of ours from its published parts, or None where they do not fit together."""
    if len(parts) > 1:
        return torch.cat(parts) if len({part.shape for part in parts}) == 1 else None  # rows: q, then k, then v
    value = parts[0]
    if name == "logit_scale" and value.numel() == 1:
        return value.reshape(())  # some checkpoints store (1,)
    if layout == "huggingface" and name in _TRANSPOSED_IN_HUGGINGFACE:
        return value.T if value.ndim == 2 else None
    return value


def _refuse(missing: list[str], wrong: list[str], left: list[str], config: ClipConfig) -> None:
    problems = []
    if missing:
        problems.append(f"{len(missing)} missing ({_some(missing)})")
    if wrong:
        problems.append(f"{len(wrong)} of the wrong shape ({_some(wrong)})")
    if left:
        problems.append(f"{len(left)} left over ({_some(left)})")
    if problems:
        raise BackboneError(
            f"the weights do not fit the architecture '{config.name}': tensors " + "; ".join(problems) + ". "
            "Take the weights and the configuration from the same place, and download them again if in doubt"
        )


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def to_huggingface(state: Mapping[str, Tensor], *, vision_only: bool = False) -> dict[str, Tensor]:
    """Our state dict under the names of `transformers.CLIPModel` (or `CLIPVisionModelWithProjection`)."""
    return _export(state, "huggingface", vision_only)


def to_openai(state: Mapping[str, Tensor], *, vision_only: bool = False) -> dict[str, Tensor]:
    """Our state dict under the names of OpenAI's archives, which open_clip shares."""
    return _export(state, "openai", vision_only)


def _export(state: Mapping[str, Tensor], layout: Layout, vision_only: bool) -> dict[str, Tensor]:
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        if vision_only and name == "logit_scale":
            continue
        if layout == "huggingface" and name in _TRANSPOSED_IN_HUGGINGFACE:
            value = value.T
        targets = source_names(name, layout)
        for target, part in zip(targets, value.chunk(len(targets)) if len(targets) > 1 else [value], strict=True):
            result[target] = part.detach().contiguous()
    return result


def infer_config(state: Mapping[str, Tensor], *, name: str, activation: Activation) -> ClipConfig:
    """The architecture of a state dict in the `openai` layout, read from its shapes; heads are width // 64.

    Args:
        state: as `unwrap` returns it.
        name: what to call it.
        activation: not visible in shapes: `quick_gelu` for OpenAI's weights, `gelu` for most of LAION's.

    Raises:
        BackboneError: a tensor that is needed is missing, or shapes alone cannot tell the number of heads.
    """
    try:
        vision = _infer_vision(state, activation)
        embed_dim = state["visual.proj"].shape[1]
        text = _infer_text(state, activation) if "token_embedding.weight" in state else None
    except (KeyError, IndexError, ValueError) as error:
        raise BackboneError(
            f"the weights are incomplete: {error} is missing or misshapen; download them again"
        ) from error
    widest = max(vision.width, text.width if text else 0)
    if widest > _WIDEST_WITH_HEAD_DIM_64:
        raise BackboneError(
            f"the shapes of a tower as wide as {widest} do not tell how many heads it has; "
            "put the open_clip_config.json of the model beside the checkpoint"
        )
    config = ClipConfig(name=name, embed_dim=embed_dim, vision=vision, text=text)
    config.check()
    return config


def _infer_vision(state: Mapping[str, Tensor], activation: Activation) -> VisionConfig:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    grid = math.isqrt(state["visual.positional_embedding"].shape[0] - 1)
    hidden = state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    layers = _count_blocks(state, "visual.transformer.resblocks.")
    filters = state.get("visual.detail.filters.bias")
    return VisionConfig(
        width,
        layers,
        max(width // HEAD_DIM, 1),
        patch,
        grid * patch,
        mlp_ratio(hidden, width),
        activation,
        0 if filters is None else len(filters),
        "visual.detail.rarity.mix" in state,
    )


def _infer_text(state: Mapping[str, Tensor], activation: Activation) -> TextConfig:
    vocab_size, width = state["token_embedding.weight"].shape
    context_length = state["positional_embedding"].shape[0]
    hidden = state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
    layers = _count_blocks(state, "transformer.resblocks.")
    return TextConfig(
        width,
        layers,
        max(width // HEAD_DIM, 1),
        context_length,
        vocab_size,
        mlp_ratio(hidden, width),
        activation,
    )


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})


def mlp_ratio(hidden: int, width: int) -> float:
    """The ratio that gives back exactly `hidden` when it is multiplied by `width` and cut to an integer."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width
