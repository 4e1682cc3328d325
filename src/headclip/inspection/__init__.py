"""Looking into a method: head weights, prompts, layers, the two parts of a score; and several methods side by side.

Everything here computes and returns plain dataclasses with numpy arrays; `headclip.figures` draws them.

    >>> import numpy as np
    >>> from headclip import Detector
    >>> detector = Detector(device="cpu")
    >>> seen = inspect_image(detector, np.zeros((64, 96, 3), np.uint8))
    >>> split = seen.split
    >>> abs(split.global_part + split.local_part - split.score) < 1e-5
    True
"""

from headclip.inspection.heads import HeadWeights, head_weights
from headclip.inspection.kept import KeptFeatures, Selection, keep_features, own_selection
from headclip.inspection.layers import START, LayerMaps, layer_maps, why_no_layers
from headclip.inspection.model import ImageInspection, ModelInspection, inspect_image, inspect_model
from headclip.inspection.plain import plain
from headclip.inspection.split import ScoreSplit, score_split
from headclip.inspection.switching import Switched, judge_kept
from headclip.inspection.words import ContextToken, ContextWords, DeepTokens, NearWord, PromptWords, prompt_words

__all__ = [
    "START",
    "ContextToken",
    "ContextWords",
    "DeepTokens",
    "HeadWeights",
    "ImageInspection",
    "KeptFeatures",
    "LayerMaps",
    "ModelInspection",
    "NearWord",
    "PromptWords",
    "ScoreSplit",
    "Selection",
    "Switched",
    "head_weights",
    "inspect_image",
    "inspect_model",
    "judge_kept",
    "keep_features",
    "layer_maps",
    "own_selection",
    "plain",
    "prompt_words",
    "score_split",
    "why_no_layers",
]
