"""Model configurations as others write them (Hugging Face, open_clip), to ours and back.

A setting that would change the numbers and that the towers do not have is refused, never ignored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from headclip.clip.config import (
    CLIP_MEAN,
    CLIP_STD,
    Activation,
    ClipConfig,
    TextConfig,
    VisionConfig,
    known_architectures,
)
from headclip.clip.layouts import HEAD_DIM, mlp_ratio
from headclip.errors import BackboneError

# What transformers takes for a field that config.json leaves out.
_VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
}
_TEXT_DEFAULTS = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "vocab_size": 49408,
    "hidden_act": "quick_gelu",
}
_PROJECTION_DIM = 512
# open_clip's settings that the towers honour, with its defaults; `patch_dropout` matters in training only.
_OPEN_CLIP_VISION = {
    "image_size": 224,
    "patch_size": 16,
    "width": 768,
    "layers": 12,
    "head_width": HEAD_DIM,
    "mlp_ratio": 4.0,
    "patch_dropout": 0.0,
}
_OPEN_CLIP_TEXT = {
    "context_length": 77,
    "vocab_size": 49408,
    "width": 512,
    "heads": 8,
    "layers": 12,
    "mlp_ratio": 4.0,
}
_OPEN_CLIP_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale"}


def from_huggingface(
    config: dict[str, Any], preprocessor: dict[str, Any] | None = None, *, name: str = "clip"
) -> ClipConfig:
    """Our configuration from `config.json` and, where there is one, `preprocessor_config.json`.

    Raises:
        BackboneError: the model is not a CLIP, or has a setting that the towers do not support.
    """
    try:
        return _from_huggingface(config, preprocessor, name)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise BackboneError(f"config.json is not valid: {error}; download it again") from error


def _from_huggingface(config: dict[str, Any], preprocessor: dict[str, Any] | None, name: str) -> ClipConfig:
    kind = config.get("model_type")
    if kind not in ("clip", "clip_vision_model"):
        raise BackboneError(f"config.json describes a model of type {kind!r}, not a CLIP (model_type 'clip')")
    if kind == "clip":
        vision_part = {**(config.get("vision_config") or {}), **(config.get("vision_config_dict") or {})}
    else:
        vision_part = config
    has_text = kind == "clip" and "CLIPVisionModelWithProjection" not in (config.get("architectures") or [])
    text_part = {**(config.get("text_config") or {}), **(config.get("text_config_dict") or {})}
    preprocessor = preprocessor or {}
    extra = config.get("headclip") or {}
    result = ClipConfig(
        name=str(extra.get("name", name)),
        embed_dim=int(config.get("projection_dim", _PROJECTION_DIM)),
        vision=replace(
            _vision_from_huggingface({**_VISION_DEFAULTS, **vision_part}),
            detail=extra.get("detail", 0),
            rarity=extra.get("rarity", False),
        ),
        text=_text_from_huggingface({**_TEXT_DEFAULTS, **text_part}) if has_text else None,
        mean=_triple(preprocessor.get("image_mean", CLIP_MEAN)),
        std=_triple(preprocessor.get("image_std", CLIP_STD)),
        default_image_size=extra.get("default_image_size"),
        keep_aspect=bool(extra.get("keep_aspect", False)),
        least_side=extra.get("least_side", 0.0),
    )
    result.check()
    return result


def _vision_from_huggingface(part: dict[str, Any]) -> VisionConfig:
    if part.get("num_channels", 3) != 3:
        raise BackboneError(f"the vision tower reads {part['num_channels']} channels; only 3 are supported")
    width = int(part["hidden_size"])
    return VisionConfig(
        width=width,
        layers=int(part["num_hidden_layers"]),
        heads=int(part["num_attention_heads"]),
        patch_size=int(part["patch_size"]),
        image_size=int(part["image_size"]),
        mlp_ratio=mlp_ratio(int(part["intermediate_size"]), width),
        activation=_common(part),
    )


def _text_from_huggingface(part: dict[str, Any]) -> TextConfig:
    width = int(part["hidden_size"])
    return TextConfig(
        width=width,
        layers=int(part["num_hidden_layers"]),
        heads=int(part["num_attention_heads"]),
        context_length=int(part["max_position_embeddings"]),
        vocab_size=int(part["vocab_size"]),
        mlp_ratio=mlp_ratio(int(part["intermediate_size"]), width),
        activation=_common(part),
    )


def _common(part: dict[str, Any]) -> Activation:
    """The activation of a tower, after the check of what both towers share."""
    if part.get("layer_norm_eps", 1e-5) != 1e-5:
        raise BackboneError(f"layer_norm_eps is {part['layer_norm_eps']}; only 1e-5 is supported")
    if part["hidden_act"] not in ("quick_gelu", "gelu"):
        raise BackboneError(f"activation {part['hidden_act']!r} is not supported; CLIP uses quick_gelu or gelu")
    return cast(Activation, part["hidden_act"])


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def to_huggingface(config: ClipConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`config.json` and `preprocessor_config.json` that transformers reads; ours adds a block `headclip`."""
    vision = {
        **_tower_to_huggingface(config.vision, config.embed_dim),
        "model_type": "clip_vision_model",
        "image_size": config.vision.image_size,
        "patch_size": config.vision.patch_size,
        "num_channels": 3,
    }
    ours: dict[str, Any] = {
        "name": config.name,
        "default_image_size": config.default_image_size,
        "keep_aspect": config.keep_aspect,
    }
    if config.least_side:
        ours["least_side"] = config.least_side
    if config.vision.detail:
        ours["detail"] = config.vision.detail
    if config.vision.rarity:
        ours["rarity"] = True
    if config.text is None:
        model = {"architectures": ["CLIPVisionModelWithProjection"], **vision, "headclip": ours}
        return model, _preprocessor(config)
    text = {
        **_tower_to_huggingface(config.text, config.embed_dim),
        "model_type": "clip_text_model",
        "max_position_embeddings": config.text.context_length,
        "vocab_size": config.text.vocab_size,
        "bos_token_id": config.text.vocab_size - 2,
        "eos_token_id": config.text.vocab_size - 1,
        "pad_token_id": config.text.vocab_size - 1,
    }
    model = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.embed_dim,
        "vision_config": vision,
        "text_config": text,
        "headclip": ours,
    }
    return model, _preprocessor(config)


def _tower_to_huggingface(tower: VisionConfig | TextConfig, embed_dim: int) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": int(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": tower.activation,
        "layer_norm_eps": 1e-5,
        "projection_dim": embed_dim,
    }


def _preprocessor(config: ClipConfig) -> dict[str, Any]:
    size = config.vision.image_size
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def from_open_clip(content: dict[str, Any], *, name: str = "clip") -> ClipConfig:
    """Our configuration from `open_clip_config.json`, or from one of open_clip's model configurations.

    Raises:
        BackboneError: the file is not valid, or has a setting that the towers do not support.
    """
    model = content.get("model_cfg", content)
    statistics = content.get("preprocess_cfg") or {}
    try:
        vision, text = {**_OPEN_CLIP_VISION, **model["vision_cfg"]}, {**_OPEN_CLIP_TEXT, **model["text_cfg"]}
        strange = [key for key, value in model.items() if key not in _OPEN_CLIP_MODEL and value]
        strange += [f"vision_cfg.{key}" for key, value in vision.items() if key not in _OPEN_CLIP_VISION and value]
        strange += [f"text_cfg.{key}" for key, value in text.items() if key not in _OPEN_CLIP_TEXT and value]
        if strange:
            raise BackboneError(f"open_clip_config.json has settings that are not supported: {', '.join(strange)}")
        activation: Activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        towers = (
            VisionConfig(
                width=int(vision["width"]),
                layers=int(vision["layers"]),
                heads=int(vision["width"]) // int(vision["head_width"]),
                patch_size=int(vision["patch_size"]),
                image_size=int(vision["image_size"]),
                mlp_ratio=float(vision["mlp_ratio"]),
                activation=activation,
            ),
            TextConfig(
                width=int(text["width"]),
                layers=int(text["layers"]),
                heads=int(text["heads"]),
                context_length=int(text["context_length"]),
                vocab_size=int(text["vocab_size"]),
                mlp_ratio=float(text["mlp_ratio"]),
                activation=activation,
            ),
        )
        mean, std = _triple(statistics.get("mean") or CLIP_MEAN), _triple(statistics.get("std") or CLIP_STD)
        result = ClipConfig(name, int(model["embed_dim"]), *towers, mean=mean, std=std)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BackboneError(f"open_clip_config.json is not valid: {error}; download it again") from error
    result.check()
    return result


def named_architecture(config: ClipConfig) -> ClipConfig | None:
    """The shipped architecture with the same towers, whatever its activation; or None."""
    for path in known_architectures().values():
        known = ClipConfig.load(path)
        if _shape_of(known) == _shape_of(config):
            return known
    return None


def _shape_of(config: ClipConfig) -> tuple[Any, ...]:
    towers = (config.vision, config.text)
    return config.embed_dim, *(tower and replace(tower, activation="quick_gelu") for tower in towers)
