"""What a detector has learnt, and how it came to its judgement of an image."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headclip.inference.detector import Detector
from headclip.inference.given import ImageLike, read
from headclip.inspection.heads import HeadWeights, head_weights
from headclip.inspection.kept import keep_features
from headclip.inspection.layers import LayerMaps, why_no_layers
from headclip.inspection.split import ScoreSplit, score_split
from headclip.inspection.switching import judge_kept
from headclip.inspection.words import Measure, PromptWords, prompt_words
from headclip.methods.base import Method, create_method
from headclip.methods.similarity import SimilarityMethod


@dataclass(frozen=True)
class ModelInspection:
    """What a method has learnt.

    facts: what the detector says of itself, as in run.json. trained: whether there is a checkpoint.
    absent: what cannot be shown ("heads", "prompts", "start") with the reason.
    """

    facts: dict[str, Any]
    trained: bool
    learns: str
    heads: HeadWeights | None
    prompts: PromptWords | None
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageInspection:
    """How an image was judged.

    image: (H, W, 3) uint8; anomaly_map: (H, W) float32 in [0, 1], at the image's own resolution. input_size: (H, W)
    at which it entered the tower. layers: None where the map is no sum over layers; absent says why.
    """

    name: str
    image: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32]
    input_size: tuple[int, int]
    split: ScoreSplit
    layers: LayerMaps | None
    absent: dict[str, str] = field(default_factory=dict)


def inspect_model(detector: Detector, *, count: int = 5, measure: Measure = "euclidean") -> ModelInspection:
    """Head weights and prompts of a detector's method.

    Args:
        count: nearest words for each learnt token.
        measure: how distances to words are taken.
    """
    method = detector.method
    absent: dict[str, str] = {}
    start = first_values(detector)
    heads = head_weights(method, start)
    prompts = prompt_words(method, start, count=count, measure=measure)
    if heads is None:
        off = hasattr(method, "effective_head_weights")
        absent["heads"] = (
            f"{method.name} was set up without head weights" if off else f"{method.name} has no head weights"
        )
    if prompts is None:
        absent["prompts"] = f"{method.name} learns no words"
        if method.name == "adaclip":
            absent["prompts"] += ": its prompts replace states inside the towers, where no vocabulary is"
    learns = getattr(type(method), "learns", "")
    if start is None and (heads is not None or prompts is not None):
        official = detector.info is not None and detector.info.training.get("source") == "official"
        absent["start"] = (
            "the values before training are not known for a checkpoint that others published"
            if official
            else "nothing was trained: these are first values"
            if detector.info is None
            else "the values before training came from no seed"
        )
    return ModelInspection(detector.describe(), detector.info is not None, learns, heads, prompts, absent)


def inspect_image(
    detector: Detector, image: ImageLike, *, name: str | None = None, category: str | None = None
) -> ImageInspection:
    """Judge one image, or the detector's region of interest in it, and say how the judgement came about.

    Args:
        name: for display; None takes the file's name.
        category: what the image shows, where that is not the detector's category.

    Raises:
        ImageError: the image cannot be read.
    """
    array = read(image) if detector.roi is None else detector.roi.crop(read(image))
    size = detector.input_size(array.shape[0], array.shape[1])
    method, text = detector.method, detector.text_of(category)
    pixels = detector.pixels([array], size)
    shown = name or (Path(image).name if isinstance(image, str | Path) else "image")
    reason = why_no_layers(method)
    output = (array.shape[0], array.shape[1])
    if reason is None and isinstance(method, SimilarityMethod):
        found = judge_kept(method, keep_features(method, pixels), text, output=output)
        return ImageInspection(shown, array, found.anomaly_map, size, found.split, found.layers)
    with torch.no_grad():  # not inference mode: methods that adapt to an image need gradients of their own
        tokens = method.tokens(pixels)
        at_tower = method.score(tokens, text, size)
        final = method.score(tokens, text, size, output).anomaly_map[0]
        of_patches = isinstance(method, SimilarityMethod) and method.config.top_level == "patches"
        patches = method.patch_map(tokens, text) if of_patches and isinstance(method, SimilarityMethod) else None
    return ImageInspection(
        name=shown,
        image=array,
        anomaly_map=(final / method.map_maximum).clamp(0, 1).float().cpu().numpy(),
        input_size=size,
        split=score_split(method, at_tower, patches),
        layers=None,
        absent={"layers": reason or "its map is no sum over layers"},
    )


def first_values(detector: Detector) -> Method | None:
    """The detector's method as it was before training, drawn again from its seed; None where that is not known."""
    info, method = detector.info, detector.method
    if info is None or info.training.get("source") == "official" or getattr(method.config, "seed", None) is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return create_method(method.name, detector.backbone, method.config).eval()
