"""Thresholds with a promise, from the scores of images believed normal; no labels, no distribution assumed.

Setting. Scores S_1..S_n of n normal images and the score S of a future normal image are exchangeable (the same line,
camera and settings; none was used to make the model). s_(k) is the k-th smallest of S_1..S_n; an image raises an
alarm when S > s_(k). Let a be the rate of false alarms to be promised.

Expected rate (split conformal; Vovk, Gammerman and Shafer 2005; Papadopoulos et al. 2002; Lei et al. 2018). The rank
of S among all n + 1 scores is uniform, so P(S > s_(k)) <= 1 - k / (n + 1), and

    k = ceil((n + 1)(1 - a))                                                                                    (1)

gives P(S > s_(k)) <= a, on average over calibration sets. It exists (k <= n) for n >= 1/a - 1.

With confidence c (training-conditional; Wilks 1941; Vovk 2012, "Conditional validity of inductive conformal
predictors"). Given the calibration set, the rate of false alarms is R = 1 - F(s_(k)), which is at most
Beta(n + 1 - k, k) in stochastic order, with equality for continuous F. R > a means that at least k of n scores lie
below the (1 - a)-quantile, so P(R > a) <= P(Bin(n, 1 - a) >= k), and

    k = min {k : P(Bin(n, 1 - a) >= k) <= 1 - c}                                                                (2)

gives P(R <= a) >= c. It exists for (1 - a)^n <= 1 - c. Ties only make both bounds safer, as an alarm needs S > s_(k).

Review band. Rank (1) is the point estimate of the threshold and rank (2) its upper confidence bound; what lies between
cannot be told with n images. So: ok up to s_(1), review up to s_(2), defect above. Both promises hold at once: at most
a of normal images are not ok (expected), and with confidence c at most a are called a defect. The band narrows as n
grows, by about 1.6 standard errors of the rate, sqrt(a (1 - a) / n), for c = 0.95. Where rank (2) does not exist the
band has no upper end.

Contamination. At most m of the n images are not normal; nobody knows which. The n - m or more clean scores are
exchangeable with S. If m' <= m are contaminated, at least k - m' of the n - m' clean scores are <= s_(k), wherever the
others lie: s_(k) is no less than the clean score of rank k - m'. With r(n) for (1) or (2), the promise therefore
holds when k - m' >= r(n - m') for all m' <= m. Both ranks grow by at most one when n does, so k - m' - r(n - m') is
least at m' = m:

    k = m + r(n - m)                                                                                            (3)

This is the worst case for false alarms, contaminants with low scores, and keeps the promise whatever they are. The
usual contaminants are defects with high scores; for these split conformal is conservative already (Bashari, Sesia and
Romano 2025, "Robust conformal outlier detection under contaminated reference data", and Clarkson et al. 2024, "Split
conformal prediction under data contamination"), that is, its threshold is too high and defects pass. If all m lie on
top, the clean threshold is the one of rank r(n - m) of all n. So the band starts there: `low` takes rank (1) of
n - m, and what lies between the two extremes is for review. Scores between `low` and the threshold are not covered
by the promise: of normal images, up to 1 - (r(n - m) - m) / (n - m + 1) may be under review.

References that are calibrated on (leave one out). S_i is the score of reference i beside the n - 1 others, S that of a
future image beside all n. Were each S_i computed beside the n - 1 others and the future image, all would be
exchangeable, and (1) would hold; that image would bring a normal one more to be like, and lower most S_i. So their
quantile is rather too high, and alarms are rather fewer; but nothing makes it so, and no bound is claimed (compare the
jackknife of Barber, Candes, Ramdas and Tibshirani 2021, "Predictive inference with the jackknife+").
`benchmarks/reference_thresholds.py` measures it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, betaincinv

from headclip.errors import InputError

BAND_CONFIDENCE = 0.95  # of the review band's upper end, where the user asks for none
_HAIR = 1e-9  # so that 0.01 * 100 counts as 1


class TooFewImagesError(InputError):
    """The images cannot keep the promise asked for.

    given: how many there are; needed: how many it takes; attainable: the lowest rate that the given ones can promise.
    """

    def __init__(self, message: str, given: int, needed: int, attainable: float) -> None:
        super().__init__(message)
        self.given, self.needed, self.attainable = given, needed, attainable


@dataclass(frozen=True)
class Promise:
    """What a threshold promises about normal images.

    false_alarms: at most this share raises an alarm; in (0, 1). confidence: None for the expected rate, averaged over
    calibration sets; else with this probability over calibration sets the rate itself is kept; in [0.5, 1).
    contaminated: at most this share of the calibration images is not normal; in [0, 0.5).
    """

    false_alarms: float = 0.01
    confidence: float | None = None
    contaminated: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.false_alarms < 1.0:
            raise InputError(f"false alarms {self.false_alarms}: a share between 0 and 1 is needed, e.g. 0.01 for 1 %")
        if self.confidence is not None and not 0.5 <= self.confidence < 1.0:
            raise InputError(f"confidence {self.confidence}: choose 0.5 or more and less than 1, e.g. 0.95")
        if not 0.0 <= self.contaminated < 0.5:
            raise InputError(f"contaminated share {self.contaminated}: choose 0 or more and less than 0.5")

    @property
    def band_confidence(self) -> float:
        """Confidence of the review band's upper end."""
        return BAND_CONFIDENCE if self.confidence is None else self.confidence


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold with its review band. Ranks count from 1, the smallest score.

    threshold: the promise is about scores above this one, rank `rank` of `images`; low, high: the review band, high
    None where it has no upper end. suspects: how many images may be contaminated. expected: the promise kept by
    `threshold` on average, 1 - (rank - suspects) / (images - suspects + 1).
    """

    threshold: float
    low: float
    high: float | None
    rank: int
    images: int
    suspects: int
    expected: float


def expected_rank(images: int, rate: float) -> int:
    """Equation (1); larger than `images` where they are too few.

    >>> expected_rank(99, 0.01), expected_rank(98, 0.01), expected_rank(1000, 0.05)
    (99, 99, 951)
    """
    return math.ceil((images + 1) * (1.0 - rate) - _HAIR)


def confident_rank(images: int, rate: float, confidence: float) -> int:
    """Equation (2); `images` + 1 where they are too few.

    >>> confident_rank(299, 0.01, 0.95), confident_rank(298, 0.01, 0.95), confident_rank(1000, 0.05, 0.95)
    (299, 299, 962)
    """
    ranks = np.arange(1, images + 1)
    # P(Bin(n, p) >= k) = I_p(k, n - k + 1), the regularised incomplete beta function; it falls with k.
    exceeds = betainc(ranks, images - ranks + 1, 1.0 - rate) > (1.0 - confidence) * (1.0 + _HAIR)
    return int(exceeds.sum()) + 1


def suspects_of(images: int, share: float) -> int:
    """The largest number of images that a contaminated share stands for, rounded up.

    >>> suspects_of(100, 0.05), suspects_of(101, 0.05), suspects_of(10, 0)
    (5, 6, 0)
    """
    return math.ceil(images * share - _HAIR)


def promise_rank(images: int, promise: Promise) -> int:
    """The rank of the threshold, equation (3); larger than `images` where they are too few."""
    suspects = suspects_of(images, promise.contaminated)
    clean = images - suspects
    rank = expected_rank(clean, promise.false_alarms)
    if promise.confidence is not None:
        rank = max(rank, confident_rank(clean, promise.false_alarms, promise.confidence))
    return suspects + rank


def images_needed(promise: Promise) -> int:
    """The least number of images that can keep a promise.

    >>> images_needed(Promise(0.01)), images_needed(Promise(0.01, 0.95)), images_needed(Promise(0.01, 0.95, 0.05))
    (99, 299, 315)
    """
    clean = math.ceil(1.0 / promise.false_alarms - 1.0 - _HAIR)
    if promise.confidence is not None:
        power = (math.log(1.0 - promise.confidence) + _HAIR) / math.log1p(-promise.false_alarms)
        clean = max(clean, math.ceil(power))  # the same hair as in `confident_rank`, or the two would disagree
    clean = max(clean, 1)
    images = max(clean, math.floor(clean / (1.0 - promise.contaminated)) - 2)
    while images - suspects_of(images, promise.contaminated) < clean:
        images += 1
    return images


def attainable_rate(images: int, promise: Promise) -> float:
    """The lowest rate that this many images can promise, the promise's other terms kept; 1 where they cannot any.

    >>> round(attainable_rate(30, Promise()), 4), round(attainable_rate(30, Promise(confidence=0.95)), 4)
    (0.0323, 0.095)
    """
    clean = images - suspects_of(images, promise.contaminated)
    if clean < 1:
        return 1.0
    rate = 1.0 / (clean + 1)
    if promise.confidence is not None:
        rate = max(rate, -math.expm1(math.log(1.0 - promise.confidence) / clean))
    return rate


def confident_rate(images: int, rank: int, confidence: float) -> float:
    """The rate that the threshold of a rank keeps with a confidence: a quantile of Beta(n + 1 - k, k)."""
    return float(betaincinv(images + 1 - rank, rank, confidence))


def conformal_threshold(scores: ArrayLike, promise: Promise) -> ConformalThreshold:
    """The threshold that keeps a promise, and its review band.

    Args:
        scores: (n,) of images believed normal, in any order; higher is more anomalous. For regions, the least
            threshold at which each image shows none (`regions.region_level`).

    Raises:
        TooFewImagesError: says how many images the promise needs, and what these ones can promise.
        InputError: no score, or one that is not a number.

    >>> found = conformal_threshold(range(1, 1001), Promise(0.05))
    >>> found.threshold, found.low, found.high, round(found.expected, 4)
    (951.0, 951.0, 962.0, 0.05)
    """
    ordered = _sorted(scores)
    count = len(ordered)
    rank = promise_rank(count, promise)
    if rank > count:
        raise too_few(count, promise)
    suspects = suspects_of(count, promise.contaminated)
    clean = count - suspects
    lowest = expected_rank(clean, promise.false_alarms)
    highest = max(rank, suspects + confident_rank(clean, promise.false_alarms, promise.band_confidence))
    return ConformalThreshold(
        threshold=float(ordered[rank - 1]),
        low=float(ordered[lowest - 1]),
        high=float(ordered[highest - 1]) if highest <= count else None,
        rank=rank,
        images=count,
        suspects=suspects,
        expected=1.0 - (rank - suspects) / (clean + 1),
    )


def tighter_promises(
    promise: Promise, rates: Sequence[float] = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
) -> dict[float, int]:
    """How many images each lower rate would need, the promise's other terms kept."""
    return {
        rate: images_needed(Promise(rate, promise.confidence, promise.contaminated))
        for rate in rates
        if rate < promise.false_alarms
    }


def _sorted(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.sort(np.asarray(scores, dtype=np.float64).ravel())
    if not len(values):
        raise InputError("no image to calibrate on; give some that are believed normal")
    if not np.isfinite(values).all():
        raise InputError("a score is not a number; leave failed images out")
    return values


def too_few(count: int, promise: Promise) -> TooFewImagesError:
    """The error for a number of images that cannot keep a promise."""
    needed, attainable = images_needed(promise), attainable_rate(count, promise)
    sure = "" if promise.confidence is None else f" with {promise.confidence:.0%} confidence"
    impure = f", up to {promise.contaminated:.0%} of them contaminated," if promise.contaminated else ""
    can = (
        f"they can promise {share_text(attainable)} at best (--tightest takes that)"
        if attainable < 1.0
        else "they can promise nothing"
    )
    plural = "image is" if count == 1 else "images are"
    return TooFewImagesError(
        f"{count} {plural} too few{impure} to promise at most {share_text(promise.false_alarms)} false alarms{sure}: "
        f"that needs {needed:,}; {can}",
        count,
        needed,
        attainable,
    )


def share_text(share: float) -> str:
    """A share as a percentage with up to three digits, rounded up, so that a promise is never overstated.

    >>> share_text(0.01), share_text(1 / 31), share_text(0.0005)
    ('1 %', '3.23 %', '0.05 %')
    """
    percent = 100.0 * share
    digits = max(0, 2 - math.floor(math.log10(percent))) if percent > 0 else 0
    rounded = math.ceil(percent * 10**digits - 1e-6) / 10**digits
    return f"{rounded:.{digits}f}".rstrip("0").rstrip(".") + " %" if digits else f"{rounded:.0f} %"
