"""An image judged again by other layers and heads, from what one pass over it left behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from headclip.inspection.kept import KeptFeatures, Selection, own_selection
from headclip.inspection.layers import LayerMaps, LocalStream
from headclip.inspection.split import ScoreSplit, score_split
from headclip.methods.similarity import SimilarityMethod


@dataclass(frozen=True)
class Switched:
    """What a selection of layers and heads makes of an image.

    anomaly_map: (h, w) float32 in [0, 1], at the resolution asked for; split: the image score in its parts;
    layers: the map split by the parts of the selection.
    """

    selection: Selection
    anomaly_map: NDArray[np.float32]
    split: ScoreSplit
    layers: LayerMaps


@torch.no_grad()
def judge_kept(
    method: SimilarityMethod,
    features: KeptFeatures,
    text: torch.Tensor,
    selection: Selection | None = None,
    *,
    output: tuple[int, int] | None = None,
) -> Switched:
    """Judge an image without a pass over it: what a detector with `csa_layers` from the lowest to the highest layer
    of the selection gives, where no layer between is left out.

    Args:
        method: one for which `headclip.inspection.why_no_layers` has no reason.
        features: from `keep_features` with this method.
        text: (2, E), the method's text vectors, order normal, abnormal.
        selection: None takes the method's own layers.
        output: (h, w) of the map; None: that of the tower's input.

    Raises:
        InputError: the selection does not fit the tower.

    >>> from headclip import Detector
    >>> from headclip.inspection import Selection, keep_features
    >>> detector = Detector(device="cpu")
    >>> pixels = detector.pixels([np.zeros((64, 96, 3), np.uint8)], detector.input_size(64, 96))
    >>> kept = keep_features(detector.method, pixels)
    >>> judge_kept(detector.method, kept, detector.text_of(), Selection((3, 4))).layers.parts
    (0, 3, 4)
    """
    chosen = selection or own_selection(method)
    stream = LocalStream(method, features, text, chosen)
    switched = stream.method
    at_tower = switched.score(stream.tokens, text, features.size)
    patches = switched.patch_map(stream.tokens, text) if switched.config.top_level == "patches" else None
    final = at_tower
    if output not in (None, features.size):
        final = switched.score(stream.tokens, text, features.size, output)
    shown = (final.anomaly_map[0] / switched.map_maximum).clamp(0, 1)
    return Switched(
        chosen,
        shown.float().cpu().numpy(),
        score_split(switched, at_tower, patches),
        stream.maps(),
    )
