"""From judged images to figures: per category and their mean, both protocols, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headclip.data.datasets import Dataset
from headclip.evaluation.bootstrap import Interval, Replicates, image_replicates, macro_replicates, pixel_replicates
from headclip.evaluation.counts import StateCounts, merge_all
from headclip.evaluation.judged import JudgedImage, dataset_key
from headclip.metrics import (
    IMAGE_METRICS,
    PROTOCOLS,
    Figures,
    PixelState,
    bounds,
    category_image_metrics,
    compute,
    macro_average,
    merge,
)
from headclip.metrics.per_image import lay_bins

FEW_IMAGES = 5  # normal or anomalous ones of a category
_KEPT_BINS = 8192  # of a category's counts, for curves; its figures have been computed before


@dataclass(frozen=True, eq=False)
class Counted:
    """What the pixels of a category's images add up to.

    state: of all images; located: by name, the pixel AUROC within each image that has defects.
    """

    state: PixelState
    located: Mapping[str, float]


Counter = Callable[[str, Sequence[JudgedImage]], Counted]
"""From a category's name and its images with pixel counts to their sum."""


@dataclass(frozen=True, eq=False)
class CategoryResult:
    """One category of a dataset.

    normal, anomalous: images that were scored. marked: images in the pixel metrics. figures: for each protocol the
    metrics, each in [0, 1]; what is not defined is absent. bounds: how far each exact pixel figure can be off.
    state: the pixels of all images in few bins, for curves; None without pixel metrics. intervals: under the
    chosen protocol. located: the pixel AUROC within each image that has defects.
    """

    name: str
    images: tuple[JudgedImage, ...]
    normal: int
    anomalous: int
    marked: int
    figures: dict[str, Figures]
    bounds: dict[str, tuple[float, float]]
    state: PixelState | None
    replicates: tuple[Replicates, ...] = ()
    intervals: dict[str, Interval] = field(default_factory=dict)
    located: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DatasetResult:
    """All categories of one dataset, judged by one method.

    facts: what the detector said of itself; fingerprint: of the images as they were judged, None where unknown.
    """

    dataset: Dataset
    method: str
    facts: dict[str, Any]
    categories: tuple[CategoryResult, ...]
    mean: dict[str, Figures]
    intervals: dict[str, Interval]
    replicates: tuple[Replicates, ...] = ()
    notes: tuple[str, ...] = ()
    leakage: str = ""
    limit: int | None = None
    fingerprint: str | None = None

    @property
    def name(self) -> str:
        """What the evaluation calls the dataset."""
        return dataset_key(self.dataset)

    @property
    def images(self) -> list[JudgedImage]:
        """All images, category by category."""
        return [image for category in self.categories for image in category.images]

    @property
    def located(self) -> dict[str, float]:
        """Pixel AUROC within each anomalous image: how well its defects stand out from the rest of it."""
        return {name: value for category in self.categories for name, value in category.located.items()}

    def not_scored(self) -> list[JudgedImage]:
        """Images that are in no figure, each with its reason."""
        return [image for image in self.images if not image.ok]


@dataclass(frozen=True)
class ScoringOptions:
    """protocol: of the intervals and tables; replicates: bootstrap draws, 0 for no intervals; pixel_intervals: False
    where the counts of single images are not at hand."""

    protocol: str = "exact"
    replicates: int = 1000
    seed: int = 0
    pixel_intervals: bool = True


Progress = Callable[[int, int], None]


def count_category(name: str, images: Sequence[JudgedImage]) -> Counted:
    """Read the pixel counts of a category's images one by one and add them up."""
    located: dict[str, float] = {}
    loaders = [(image.name, image.load) for image in images if image.load is not None]
    return Counted(merge_all(_noting(loaders, located)), located)


def score_dataset(
    dataset: Dataset,
    images: Sequence[JudgedImage],
    method: str,
    facts: dict[str, Any],
    options: ScoringOptions,
    *,
    leakage: str = "",
    limit: int | None = None,
    extra_notes: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
    count: Counter = count_category,
    fingerprint: str | None = None,
) -> DatasetResult:
    """Figures of a dataset. Pixel counts are read twice where there are intervals, image by image.

    count: adds up the pixel counts of a category, for those who have their sum already.
    """
    names = [name for name in dataset.categories if any(image.record.category == name for image in images)]
    categories = []
    for done, name in enumerate(names):
        progress(done, len(names))
        of_category = tuple(image for image in images if image.record.category == name)
        categories.append(_score_category(dataset, name, of_category, options, count))
    progress(len(names), len(names))
    mean = {protocol: macro_average([row.figures[protocol] for row in categories]) for protocol in PROTOCOLS}
    replicates = mean_replicates([category.replicates for category in categories])
    return DatasetResult(
        dataset,
        method,
        facts,
        tuple(categories),
        mean,
        centred_intervals(replicates, mean[options.protocol]),
        replicates,
        (*extra_notes, *_notes(dataset, images, limit), *_few(dataset, categories)),
        leakage,
        limit,
        fingerprint,
    )


def _score_category(
    dataset: Dataset, name: str, images: tuple[JudgedImage, ...], options: ScoringOptions, count: Counter
) -> CategoryResult:
    level = dataset.info.level
    scored = [image for image in images if image.ok]
    labels = [int(image.record.label or 0) for image in scored]
    figures = {protocol: Figures() for protocol in PROTOCOLS}
    replicates: list[Replicates] = []
    located: Mapping[str, float] = {}
    stream = f"{dataset_key(dataset)}/{name}"
    if level != "pixel":
        scores = [float(image.score or 0.0) for image in scored]
        for protocol in PROTOCOLS:
            _join(figures[protocol], category_image_metrics(scores, labels, protocol))
        if options.replicates and any(metric in figures[options.protocol] for metric in IMAGE_METRICS):
            replicates.append(
                image_replicates(scores, labels, replicates=options.replicates, seed=options.seed, stream=stream)
            )
    state, marked, found = None, 0, {}
    if level != "image":
        counted = [image for image in scored if image.load is not None]
        marked, known = len(counted), count(name, counted)
        state, located = known.state, known.located
        for protocol in PROTOCOLS:
            _join(figures[protocol], compute(state, protocol))
        found = bounds(state)
        if options.replicates and options.pixel_intervals and marked and state.positives.sum():
            counts = StateCounts(lay_bins(state))
            for image in counted:
                assert image.load is not None
                counts.add(image.load())
            replicates.append(
                pixel_replicates(
                    counts, options.protocol, replicates=options.replicates, seed=options.seed, stream=stream
                )
            )
        state = merge(replace(state, capacity=_KEPT_BINS))
    intervals = centred_intervals(replicates, figures[options.protocol])
    anomalous = sum(labels)
    return CategoryResult(
        name,
        images,
        len(labels) - anomalous,
        anomalous,
        marked,
        figures,
        found,
        state,
        tuple(replicates),
        intervals,
        dict(located),
    )


def _noting(loaders: Sequence[tuple[str, Callable[[], PixelState]]], located: dict[str, float]) -> Iterator[PixelState]:
    """The states of images one by one; the pixel AUROC of each goes into `located` where it is defined."""
    for name, load in loaders:
        state = load()
        value = compute(state).get("pixel_auroc")
        if value is not None:
            located[name] = value
        yield state


def _join(figures: Figures, more: Figures) -> None:
    figures.update(more)
    figures.absent |= more.absent


def centred_intervals(replicates: Sequence[Replicates], figures: Figures) -> dict[str, Interval]:
    """Intervals of all metrics, around the figures themselves: those of the bootstrap rest on coarser bins."""
    found: dict[str, Interval] = {}
    for part in replicates:
        for metric, interval in part.intervals().items():
            if metric in figures:
                value = figures[metric]
                shift = value - interval.value
                found[metric] = Interval(
                    value,
                    max(0.0, interval.low + shift),
                    min(1.0, interval.high + shift),
                    interval.confidence,
                    interval.replicates,
                )
    return found


def mean_replicates(rows: Sequence[Sequence[Replicates]]) -> tuple[Replicates, ...]:
    """Of the image figures and of the pixel figures, over the categories (or datasets) that have them."""
    parts = []
    for level in ("image", "pixel"):
        of_level = [part for row in rows for part in row if any(metric.startswith(level) for metric in part.estimate)]
        if of_level:
            parts.append(macro_replicates(of_level))
    return tuple(parts)


def _notes(dataset: Dataset, images: Sequence[JudgedImage], limit: int | None) -> list[str]:
    """What the reader of a table has to know; every image that is in no figure, and every odd mask, by name."""
    notes = []
    if limit is not None:
        notes.append(f"a first look at no more than {limit} images of each category, not the whole dataset")
    total, scored = (dataset.info.normal, dataset.info.anomalous), dataset.total()
    if limit is None and None not in total and total != scored:
        notes.append(
            f"{scored[0]:,} normal / {scored[1]:,} anomalous images, where {dataset.info.title} "
            f"has {total[0]:,} / {total[1]:,}"
        )
    notes += [finding.message for finding in dataset.findings if finding.severity != "note"]
    groups: dict[tuple[str, str], list[str]] = {}
    for image in images:
        if image.reason:
            groups.setdefault((image.status, image.reason), []).append(image.name)
    for (status, reason), names in groups.items():
        which = names[0] if len(names) == 1 else f"{len(names)} images ({names[0]}, ...)"
        notes.append(f"{which}: {reason}" if status == "ok" else f"{which}: not scored ({status}): {reason}")
    return notes


def _few(dataset: Dataset, categories: Sequence[CategoryResult]) -> list[str]:
    """A note on categories with so few images that drawing from them hardly shows how figures vary."""
    small = [
        f"{category.name} ({category.normal} normal, {category.anomalous} anomalous)"
        for category in categories
        if category.replicates
        and (category.anomalous < FEW_IMAGES or (dataset.info.level != "pixel" and category.normal < FEW_IMAGES))
    ]
    if not small:
        return []
    more = f" and {len(small) - 3} more" if len(small) > 3 else ""
    return [f"too few images of a kind for intervals to rely on, below {FEW_IMAGES}: {', '.join(small[:3])}{more}"]
