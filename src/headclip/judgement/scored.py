"""What a calibration needs of images: a score each, and the level at which each shows its first region.

From images (with a model), from a finished run (without), or from rendered normal images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile
from headclip.data.hashing import pixel_hash
from headclip.data.prefetch import Decoded, decode_ahead, readable_batches
from headclip.errors import ImageError, InputError
from headclip.judgement.copies import file_mark, thumbnail
from headclip.judgement.regions import RegionRules, extent_level, region_level
from headclip.prediction import Judge, Judgement, judged_or_refused

RENDER_SIZE = 320  # pixels; about what the embedded model is fed


@dataclass
class Scored:
    """Scores of images; all lists in one order.

    names: of the images; scores: in [0, 1]; levels, extents: `regions.region_level` and `regions.extent_level` of each
    map by `rules`, None where maps are not at hand; failed: images without a score, with the reason; source: facts for
    the calibration's `data`. contents: name -> hash of what the image holds, files: name -> `copies.file_mark`, of the
    images for which they are known; thumbnails: name -> `copies.thumbnail`. left_out: hashes of the detector's own
    reference images that were judged beside the other ones. volumes: scores of the volumes that the images are slices
    of, each the mean of the highest scores of a share `volume_share` of its slices.
    """

    names: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    levels: list[float] | None = field(default_factory=list)
    extents: list[float] | None = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    rules: RegionRules = field(default_factory=RegionRules)
    contents: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    thumbnails: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    volumes: tuple[float, ...] = ()
    volume_share: float | None = None

    def add(self, name: str, judgement: Judgement) -> None:
        """Put one image on the list."""
        self.names.append(name)
        self.scores.append(float(judgement.score))
        if self.levels is not None:
            self.levels.append(region_level(judgement.anomaly_map, self.rules))
        if self.extents is not None:
            self.extents.append(extent_level(judgement.anomaly_map, self.rules))

    def select(self, wanted: Callable[[str], bool]) -> Scored:
        """The images whose names are wanted."""
        kept = [index for index, name in enumerate(self.names) if wanted(name)]
        return replace(
            self,
            names=[self.names[index] for index in kept],
            scores=[self.scores[index] for index in kept],
            levels=[self.levels[index] for index in kept] if self.levels else None,
            extents=[self.extents[index] for index in kept] if self.extents else None,
        )

    def highest(self, count: int) -> list[tuple[str, float]]:
        """The images with the highest scores, highest first."""
        order = sorted(range(len(self.scores)), key=lambda index: -self.scores[index])
        return [(self.names[index], self.scores[index]) for index in order[:count]]


Progress = Callable[[int, int, int], None]
"""Called with the images done, their number, and how many of them failed."""
Watch = Callable[[str, NDArray[np.float32]], None]
"""Called with the name of an image and its map."""


def silent(done: int, total: int, failed: int) -> None:
    """No progress."""


def score_images(
    detector: Judge,
    files: Sequence[ImageFile],
    rules: RegionRules,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress = silent,
    watch: Watch | None = None,
) -> Scored:
    """Judge image files; broken ones go to `failed`. Maps are dropped as soon as their level is known.

    watch: called with the name and the map of every image that is no copy of an earlier one.
    """
    found = Scored(source={"kind": "images", "images": len(files)}, rules=rules)

    def refuse(item: Decoded) -> None:
        found.failed[item.file.name] = item.reason or "unknown reason"

    def judge(batch: Sequence[Decoded]) -> Sequence[Judgement]:
        return detector.predict_arrays([item.pixels for item in batch if item.pixels is not None])

    def refuse_too(item: Decoded, error: ImageError) -> None:
        refuse(replace(item, reason=str(error)))

    seen: set[str] = set()
    ahead = max(4, 2 * detector.batch_size)
    with closing(decode_ahead(files, max_pixels=max_pixels, max_images=ahead)) as decoded:
        for batch in readable_batches(decoded, lambda: detector.batch_size, refuse):
            for item, judgement in judged_or_refused(judge, batch, refuse_too):
                name, pixels = item.file.name, item.pixels
                assert pixels is not None
                found.add(name, judgement)
                content = pixel_hash(pixels)
                if watch is not None and content not in seen:
                    watch(name, judgement.anomaly_map)
                seen.add(content)
                found.contents[name], found.thumbnails[name] = content, thumbnail(pixels)
                if item.sha256 is not None:
                    found.files[name] = file_mark(item.size, item.sha256)
            progress(len(found.names) + len(found.failed), len(files), len(found.failed))
    return found


def score_rendered(
    detector: Judge,
    count: int,
    rules: RegionRules,
    *,
    seed: int = 0,
    size: int = RENDER_SIZE,
    progress: Progress = silent,
) -> Scored:
    """Judge `count` rendered normal images of `size` pixels, those of the seeds `item_seed(seed, 0)` and on."""
    from headclip.data.synthetic.renderer import RENDERER_VERSION, item_seed, render

    source = {"kind": "rendered", "images": count, "seed": seed, "size": size, "renderer": RENDERER_VERSION}
    found = Scored(source=source, rules=rules)
    for start in range(0, count, detector.batch_size):
        numbers = range(start, min(start + detector.batch_size, count))
        images = [render(item_seed(seed, number), size, defect_rate=0.0).image for number in numbers]
        arrays = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images]  # (3, H, W) -> (H, W, 3)
        for number, judgement in zip(numbers, detector.predict_arrays(arrays), strict=True):
            found.add(f"rendered {number}", judgement)
        progress(len(found.names), count, 0)
    return found


def labelled_apart(scored: Scored, labels: Mapping[str, int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Scores (n,) and "is anomalous" (n,) of the images with a label.

    Raises:
        InputError: there is no normal or no anomalous one among them.
    """
    pairs = [(score, labels[name]) for name, score in zip(scored.names, scored.scores, strict=True) if name in labels]
    scores = np.array([score for score, _ in pairs], dtype=np.float64)
    anomalous = np.array([label == 1 for _, label in pairs], dtype=bool)
    if not anomalous.any() or anomalous.all():
        raise InputError(
            f"{int((~anomalous).sum())} normal and {int(anomalous.sum())} anomalous labelled images: both kinds are "
            "needed; without anomalous ones, calibrate on the normal ones alone (no --labelled)"
        )
    return scores, anomalous
