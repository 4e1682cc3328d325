"""Reads the names under which AdaCLIP's authors save what they learnt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from headclip.errors import CheckpointError

PREFIXES = ("module.", "clip_model.")
# theirs -> ours; a prompt's number counts from 0 in both
_NAMES = (
    (r"visual_prompter\.static_prompts\.(\d+)", r"vision_prompts.static.\1"),
    (r"text_prompter\.static_prompts\.(\d+)", r"text_prompts.static.\1"),
    (r"dynamic_visual_prompt_generator\.head\.(\d+)\.(weight|bias)", r"vision_prompts.generators.\1.\2"),
    (r"dynamic_text_prompt_generator\.head\.(\d+)\.(weight|bias)", r"text_prompts.generators.\1.\2"),
    (r"patch_token_layer\.head\.(\d+)\.(weight|bias)", r"patch_heads.\1.\2"),
    (r"cls_token_layer\.head\.0\.(weight|bias)", r"image_head.\1"),
)
_TEXT_STATIC = re.compile(r"text_prompts\.static\.(\d+)")


def our_names(content: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """An official file's tensors under the names of `AdaClip.state_dict()`; None where it is no such file.

    The first text set is left out: text prompts begin at layer 2, so nothing ever reads or trains it.
    """
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            continue
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        for theirs, ours in _NAMES:
            if re.fullmatch(theirs, key):
                found[re.sub(theirs, ours, key)] = value
    if "patch_heads.0.weight" not in found or "image_head.weight" not in found:
        return None
    renamed = {}
    for name, value in found.items():
        match = _TEXT_STATIC.fullmatch(name)
        if match is None:
            renamed[name] = value
        elif int(match.group(1)) > 0:
            renamed[f"text_prompts.static.{int(match.group(1)) - 1}"] = value
    return renamed


def check_tensors(given: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, ...]], backbone: str) -> None:
    """Compare a renamed official file with the names and shapes of the method that is to take it.

    Raises:
        CheckpointError: a tensor is missing, too many, or of another shape.
    """
    taps = (count(given, r"patch_heads\.\d+\.weight"), count(wanted, r"patch_heads\.\d+\.weight"))
    if taps[0] != taps[1]:
        raise CheckpointError(f"it has projections for {taps[0]} layers, but {taps[1]} are tapped; give {taps[0]} taps")
    for name in sorted(given.keys() | wanted.keys()):
        if name not in given:
            raise CheckpointError(f"it lacks what AdaCLIP calls {name}; the file is incomplete")
        if name not in wanted:
            raise CheckpointError(f"it holds {name}, for which its other prompts leave no place; the file is damaged")
        if tuple(given[name].shape) != wanted[name]:
            raise CheckpointError(
                f"its {name} has shape {tuple(given[name].shape)}, but on '{backbone}' it must have {wanted[name]}; "
                "AdaCLIP's published checkpoints belong to ViT-L-14-336"
            )


def count(tensors: Mapping[str, Any], pattern: str) -> int:
    """How many names match."""
    return sum(re.fullmatch(pattern, name) is not None for name in tensors)


def describe(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that the shapes of a renamed official file tell: fields of `AdaClipConfig`."""
    vision, text = (count(tensors, rf"{tower}_prompts\.static\.\d+") for tower in ("vision", "text"))
    made = [
        count(tensors, rf"{tower}_prompts\.generators\.\d+\.weight") for tower in ("vision", "text")
    ]  # the authors save both towers' generators, even of a tower without prompts
    dynamic, static = max(made) > 0, vision + text > 0
    settings: dict[str, Any] = {"static": static, "dynamic": dynamic}
    if static:
        settings |= {
            "vision_prompts": vision > 0,
            "text_prompts": text > 0,
            "depth": vision or text + 1,
            "length": next(len(value) for name, value in tensors.items() if "_prompts.static." in name),
        }
    elif dynamic:
        settings["length"] = max(made)
    return settings
