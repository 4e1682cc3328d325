"""The two parts of an image score, and what it would be with another alpha or another share of the map."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headclip.errors import InputError
from headclip.methods.base import Method, Scores

POINTS = 96


@dataclass(frozen=True)
class ScoreSplit:
    """An image score as (1 - alpha) * global + alpha * local (HeadCLIP, equations 7 and 8).

    global_score: of the whole image; local_score: mean of the highest `top_share` of the map; all in [0, 1].
    shares: (S,) increasing, in (0, 1], evenly spaced in their logarithm, `top_share` among them.
    local_by_share: (S,) the local score that each share would give.
    """

    score: float
    global_score: float
    local_score: float
    alpha: float
    top_share: float
    shares: NDArray[np.float64]
    local_by_share: NDArray[np.float64]

    @property
    def global_part(self) -> float:
        """What the whole image contributes to the score: (1 - alpha) * global."""
        return (1.0 - self.alpha) * self.global_score

    @property
    def local_part(self) -> float:
        """What the map contributes to the score: alpha * local."""
        return self.alpha * self.local_score

    @cached_property
    def _logs(self) -> NDArray[np.float64]:
        return np.log(self.shares)

    def local_at(self, top_share: float) -> float:
        """The local score with another share; between the points by a straight line over the logarithm."""
        if not 0.0 < top_share <= 1.0:
            raise InputError(f"top share {top_share}: choose more than 0, and at most 1")
        return float(np.interp(np.log(top_share), self._logs, self.local_by_share))

    def score_at(self, alpha: float | None = None, top_share: float | None = None) -> float:
        """The image score with another alpha, another share, or both."""
        weight = self.alpha if alpha is None else alpha
        if not 0.0 <= weight <= 1.0:
            raise InputError(f"alpha {weight}: choose 0 (whole image alone) to 1 (map alone)")
        local = self.local_score if top_share is None else self.local_at(top_share)
        return (1.0 - weight) * self.global_score + weight * local


def score_split(method: Method, scores: Scores, patches: torch.Tensor | None = None) -> ScoreSplit:
    """Split the score of one image.

    Args:
        scores: what the method said of a batch of one image, the map at the size of the tower's input.
        patches: (1, R, C) patch values, for a method whose local score is taken of them (`top_level="patches"`).
    """
    config: Any = method.config
    values = scores.anomaly_map if patches is None else patches
    levels = values.detach().float().flatten().cpu().double().numpy() / method.map_maximum
    if getattr(config, "normalise_map", "none") == "image":
        levels = (levels - levels.min()) / max(levels.max() - levels.min(), 1e-12)
    shares, local = _by_share(levels, config.top_share)
    return ScoreSplit(
        score=float(scores.score),
        global_score=float(scores.global_score),
        local_score=float(scores.local_score),
        alpha=float(config.alpha),
        top_share=float(config.top_share),
        shares=shares,
        local_by_share=local,
    )


def _by_share(levels: NDArray[np.float64], own: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares from a single value to all of them, and the mean of the highest values for each."""
    count = len(levels)
    means = np.cumsum(np.sort(levels)[::-1]) / np.arange(1, count + 1)
    shares = np.unique(np.append(np.geomspace(1.0 / count, 1.0, POINTS), own))
    shares = shares[(shares > 0.0) & (shares <= 1.0)]
    counts = np.clip(np.floor(shares * count).astype(int), 1, count)  # as headclip.methods.scoring.top_share_mean
    return shares, means[counts - 1]
