"""The one door to weights: a name, folder, file or hub id in, a frozen `Backbone` out; and back again."""

from __future__ import annotations

import difflib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from headclip.clip import config_formats, hub
from headclip.clip.backbone import Backbone, hash_tensors
from headclip.clip.config import Activation, ClipConfig, known_architectures
from headclip.clip.files import CHECKPOINT_SUFFIXES, OPEN_CLIP_WEIGHTS, read_json, read_state
from headclip.clip.layouts import detect_layout, infer_config, to_huggingface, to_ours
from headclip.clip.tokenizer import CLIP_VOCAB_SIZE, ClipTokenizer
from headclip.errors import BackboneError
from headclip.files import cannot_write, expanded, scratch_folder

EMBEDDED = Path(__file__).parent / "embedded"
HUB_IDS = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336": "openai/clip-vit-large-patch14-336",
    "ViT-B-16-plus-240": "timm/vit_base_patch16_plus_clip_240.laion400m_e31",
}
# Words in the names of published open_clip checkpoints; "quickgelu" has to be looked for before "gelu".
_QUICK_GELU_MARKS = ("quickgelu", "openai", "metaclip", "dfn")
_GELU_MARKS = ("laion", "datacomp", "commonpool", "gelu")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def load_backbone(
    name_or_path: str | os.PathLike[str] = "embedded",
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Backbone:
    """A frozen CLIP, ready to run.

    Args:
        name_or_path: one of
            `embedded`: the small model that ships with the package;
            a short name: `ViT-B-32`, `ViT-B-16`, `ViT-L-14`, `ViT-L-14-336` (OpenAI's weights) or
            `ViT-B-16-plus-240` (LAION's);
            a hub id such as `openai/clip-vit-large-patch14-336`, from the cache or downloaded;
            a folder in Hugging Face or open_clip layout;
            a file: OpenAI's `.pt` archive, or an open_clip checkpoint (`.pt`, `.bin`, `.safetensors`).
        dtype: precision of the weights; each tensor is converted on its own, so memory is not doubled.
        device: where the weights end up.

    Raises:
        BackboneError: the name is unknown, files are missing, corrupt or do not fit together, the vocabulary
            is not the model's, or the hub cannot be reached. The message says what to do.

    Example:
        >>> backbone = load_backbone("ViT-L-14-336")                        # doctest: +SKIP
        >>> backbone.encode_text(["a photo of a damaged object"]).shape    # doctest: +SKIP
        torch.Size([1, 768])
    """
    if dtype not in _DTYPES:
        raise BackboneError(f"weights cannot be of type {dtype}; use float32, bfloat16 or float16")
    given = os.fspath(name_or_path)
    name, folder_or_file = resolve(given)
    if folder_or_file.is_dir():
        config, state, tokenizer = _read_folder(folder_or_file)
    else:
        config, state, tokenizer = _read_single_file(folder_or_file)
    if name in HUB_IDS:
        _check_is(config, name)
    return build_backbone(state, config, tokenizer, name=name, dtype=dtype, device=device)


def build_backbone(
    state: Mapping[str, Tensor],
    config: ClipConfig,
    tokenizer: ClipTokenizer | None = None,
    *,
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Backbone:
    """A frozen backbone from a published state dict (see `layouts`), a configuration and a tokenizer.

    Tensors that are in the right precision and place already are shared with `state`, not copied.

    Raises:
        BackboneError: state, configuration and vocabulary do not fit together.
    """
    text = config.text
    if text is not None and tokenizer is not None:
        if len(tokenizer) != text.vocab_size:
            raise BackboneError(
                f"the tokenizer has {len(tokenizer)} tokens but the text tower of '{config.name}' has "
                f"{text.vocab_size}; take the tokenizer files from the same place as the weights"
            )
        if tokenizer.context_length != text.context_length:
            raise BackboneError(
                f"the tokenizer fills {tokenizer.context_length} places but the text tower has "
                f"{text.context_length}; build it with that context_length"
            )
    ours = to_ours(state, config)
    if strange := [key for key, value in ours.items() if not value.is_floating_point()]:
        raise BackboneError(f"weights have to be floating-point numbers, and {strange[0]} is {ours[strange[0]].dtype}")
    # Where the cast loses digits, the hash has to be taken first: it identifies the weights as published.
    lossy = any(torch.promote_types(value.dtype, dtype) != dtype for value in ours.values())
    content_hash = hash_tensors(ours) if lossy else None
    with torch.device("meta"):
        backbone = Backbone(config, tokenizer, name=name)
    for key in list(ours):  # in place, so that no second complete copy exists at any time
        ours[key] = ours[key].to(device=device, dtype=dtype).contiguous()
    backbone.load_state_dict(ours, assign=True)
    backbone.content_hash = content_hash
    return backbone.freeze()


def resolve(given: str) -> tuple[str, Path]:
    """What a name stands for: the name itself in its standard spelling, and a local folder or file.

    A hub id is downloaded here if it is not in the cache.

    Raises:
        BackboneError: nothing of that name exists.
    """
    if given == "embedded":
        if not hub.is_complete(EMBEDDED):
            raise BackboneError(
                "this installation has no embedded model; reinstall the package, or pass another --backbone "
                f"({', '.join(HUB_IDS)}, a hub id, a folder or a file)"
            )
        return given, EMBEDDED
    short = {_plain(name): name for name in HUB_IDS}.get(_plain(given))
    if short is not None:
        return short, hub.fetch(HUB_IDS[short])
    path = expanded(given)
    if path.exists():
        return given, path
    if given.startswith((".", "~", os.sep)) or given.endswith(CHECKPOINT_SUFFIXES):
        raise BackboneError(f"no file or folder at {given}; check the path of the backbone")
    if hub.is_hub_id(given):
        return given, hub.fetch(given)
    names = ["embedded", *HUB_IDS]
    close = difflib.get_close_matches(given.lower(), [name.lower() for name in names], n=1)
    hint = "".join(f" Did you mean {name}?" for name in names if name.lower() in close)
    raise BackboneError(
        f"unknown backbone '{given}'.{hint} Possible are {', '.join(names)}, a hub id (organisation/model), "
        "a folder in Hugging Face layout, or a checkpoint file"
    )


def _plain(name: str) -> str:
    """`ViT-L/14@336px` and `vit-l-14-336` alike."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).removesuffix("px")


def _check_is(config: ClipConfig, name: str) -> None:
    known = ClipConfig.load(known_architectures()[name])
    if (config.embed_dim, config.vision, config.text) != (known.embed_dim, known.vision, known.text):
        raise BackboneError(
            f"the files of {HUB_IDS[name]} do not hold a {name}; remove them from the local cache and "
            "download them again"
        )


Loaded = tuple[ClipConfig, dict[str, Tensor], ClipTokenizer | None]


def _read_folder(folder: Path) -> Loaded:
    names = {path.name for path in folder.iterdir()}
    content = read_json(folder / "config.json") if "config.json" in names else {}
    weights = hub.weight_file(names, hub.is_clip_config(content))
    if weights is None:
        raise BackboneError(
            f"{folder} does not hold a CLIP model: it needs the config.json of a CLIP with model.safetensors "
            "(Hugging Face layout), or open_clip_config.json with open_clip_model.safetensors"
        )
    if weights in OPEN_CLIP_WEIGHTS:
        return _read_single_file(folder / weights)
    preprocessor = read_json(folder / "preprocessor_config.json") if "preprocessor_config.json" in names else None
    config = config_formats.from_huggingface(content, preprocessor, name=folder.name)
    if "headclip" not in content:
        config = _with_known_name(config)
    return config, read_state(folder / weights), _tokenizer_for(config, folder)


def _read_single_file(path: Path) -> Loaded:
    state = read_state(path)
    if detect_layout(state) == "huggingface":
        raise BackboneError(
            f"{path} is in Hugging Face layout, where the settings are in a config.json; "
            "pass the folder that holds both instead of the file"
        )
    sidecar = path.parent / "open_clip_config.json"
    if sidecar.is_file() and not _is_openai_archive(state):
        config = config_formats.from_open_clip(read_json(sidecar), name=path.stem)
        return _with_known_name(config), state, _tokenizer_for(config, path.parent)
    config = infer_config(state, name=path.stem, activation=_activation_of(path, state))
    return _with_known_name(config), state, _tokenizer_for(config, None)


def _with_known_name(config: ClipConfig) -> ClipConfig:
    known = config_formats.named_architecture(config)
    return config if known is None else replace(config, name=known.name)


def _is_openai_archive(state: Mapping[str, Tensor]) -> bool:
    """OpenAI's archives carry three facts as buffers, which open_clip's checkpoints leave out."""
    return {"input_resolution", "context_length", "vocab_size"} <= set(state)


def _activation_of(path: Path, state: Mapping[str, Tensor]) -> Activation:
    """The activation of a checkpoint that comes without settings: by its kind, its name, or a warning."""
    name = path.name.lower()
    if _is_openai_archive(state) or any(mark in name for mark in _QUICK_GELU_MARKS):
        return "quick_gelu"
    if any(mark in name for mark in _GELU_MARKS):
        return "gelu"
    known = config_formats.named_architecture(infer_config(state, name=path.stem, activation="quick_gelu"))
    if known is not None and known.vision.activation == "gelu":
        return "gelu"
    warnings.warn(
        f"{path} does not say which activation the model was trained with; QuickGELU is taken, as in "
        "OpenAI's weights. Put the model's open_clip_config.json beside the file to settle it",
        stacklevel=2,
    )
    return "quick_gelu"


def _tokenizer_for(config: ClipConfig, folder: Path | None) -> ClipTokenizer | None:
    """The tokenizer that belongs to a model; CLIP's own only where its length fits and no other is given."""
    if config.text is None:
        return None
    size, context = config.text.vocab_size, config.text.context_length
    if folder is not None and any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "merges.txt")):
        return ClipTokenizer.from_folder(folder, vocab_size=size, context_length=context)
    if size == CLIP_VOCAB_SIZE:
        return ClipTokenizer(context_length=context)
    raise BackboneError(
        f"the text tower of '{config.name}' has {size} tokens, not CLIP's {CLIP_VOCAB_SIZE}, and no "
        "tokenizer came with it; put tokenizer.json, or vocab.json and merges.txt, beside the weights"
    )


def save_backbone(backbone: Backbone, folder: str | os.PathLike[str], dtype: torch.dtype = torch.float16) -> None:
    """Write a backbone as a folder in Hugging Face layout, which transformers reads as well.

    config.json, preprocessor_config.json, model.safetensors and the tokenizer's files. Each file replaces an
    older one in one step, so that a model that is mapped from this very folder stays intact.

    Raises:
        BackboneError: a weight is not finite, or not in the range of `dtype`.
        OutputError: the folder cannot be written; the full disk says so.
    """
    target = Path(folder)
    vision_only = backbone.config.text is None
    state = {key: value.detach().to("cpu", dtype) for key, value in backbone.state_dict().items()}
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise BackboneError(
                f"weight {key} has values that are not finite as {dtype}; save as torch.float32, or go "
                "back to an earlier state of the training"
            )
    model, preprocessor = config_formats.to_huggingface(backbone.config)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target) as fresh:
            _write_json(fresh / "config.json", {**model, "dtype": str(dtype).removeprefix("torch.")})
            _write_json(fresh / "preprocessor_config.json", preprocessor)
            content = save(to_huggingface(state, vision_only=vision_only), metadata={"format": "pt"})
            (fresh / "model.safetensors").write_bytes(content)
            if backbone.tokenizer is not None and not vision_only:
                backbone.tokenizer.save(fresh)
            for path in sorted(fresh.iterdir()):
                path.replace(target / path.name)
    except OSError as error:
        raise cannot_write(target, error) from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
