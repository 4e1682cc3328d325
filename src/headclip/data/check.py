"""Is this copy of a dataset complete, readable and what its name says?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from headclip.data.datasets.base import Counts, Dataset, DatasetInfo
from headclip.data.datasets.registry import versions_of
from headclip.data.reading import Finding, Reading
from headclip.data.records import ImageRecord, read_mask
from headclip.data.volumes.lone import decode_lone
from headclip.errors import ImageError

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CategoryCount:
    """One row of the table: test images found and expected (None: not known), and images with a mask."""

    category: str
    found: Counts
    expected: Counts | None
    masks: int


@dataclass(frozen=True)
class CheckReport:
    """What was found. version: one sentence on which published version the counts belong to."""

    dataset: Dataset
    rows: tuple[CategoryCount, ...]
    version: str
    findings: tuple[Finding, ...]
    pixels_read: bool

    @property
    def problems(self) -> list[Finding]:
        """Everything that should be repaired."""
        return [finding for finding in self.findings if finding.severity != "note"]

    @property
    def ok(self) -> bool:
        """Whether the copy is what it should be."""
        return not self.problems


def check_dataset(dataset: Dataset, *, pixels: bool = True, progress: Progress | None = None) -> CheckReport:
    """Check an opened dataset (open it leniently, so that its errors are listed with the rest).

    Args:
        pixels: also read every image and mask: damaged files, sizes, empty masks, identical files.
        progress: called with images done and their number.
    """
    reading = Reading(dataset.root, list(dataset.records), list(dataset.findings))
    version = _compare_counts(reading, dataset)
    if pixels:
        _read_all(reading, dataset, progress)
    masked = [record.category for record in dataset.records if record.label == 1 and record.has_mask]
    rows = tuple(
        CategoryCount(category, found, dataset.info.counts.get(category), masked.count(category))
        for category, found in dataset.counts().items()
    )
    order = {"error": 0, "problem": 1, "note": 2}
    findings = sorted(reading.findings, key=lambda finding: order[finding.severity])
    return CheckReport(dataset, rows, version, tuple(findings), pixels)


def known_version(info: DatasetInfo, total: Counts) -> tuple[str, str]:
    """The title of the version with these counts and the name to open it by; "" and "" where none has them.

    >>> from headclip.data.datasets import find_dataset
    >>> known_version(find_dataset("sdd"), (181, 74))
    ('SDD of AnomalyCLIP', 'sdd-anomalyclip')
    """
    for other in (info, *versions_of(info)):
        if (other.normal, other.anomalous) == total:
            return other.title, other.name
        for title, counts in other.known.items():
            if counts == total:
                return title, ""
    return "", ""


def _compare_counts(reading: Reading, dataset: Dataset) -> str:
    info, total = dataset.info, dataset.total()
    title, name = known_version(info, total)
    if name == info.name:
        return f"{info.title}, complete"
    if title:
        advice = f"; open it as {name}={dataset.root}" if name else ""
        reading.problem("another version", f"the counts are those of {title}, not of {info.title}{advice}")
        return title
    if info.normal is None or info.anomalous is None:
        return "no counts are known to compare with"
    for category, expected in info.counts.items():
        found = dataset.counts().get(category)
        if found is not None and found != expected:
            where = f"{category}: {_pair(found)} normal / anomalous images, expected {_pair(expected)}"
            reading.problem("other counts", where)
    if total != (info.normal, info.anomalous):
        whole = _pair((info.normal, info.anomalous))
        if len(info.counts) != 1:
            reading.problem("other counts", f"{_pair(total)} normal / anomalous images in all, expected {whole}")
    smaller = total[0] <= info.normal and total[1] <= info.anomalous
    return f"{'a part of' if smaller else 'no known version of'} {info.title}"


def _read_all(reading: Reading, dataset: Dataset, progress: Progress | None) -> None:
    by_hash: dict[str, list[ImageRecord]] = {}
    for done, record in enumerate(dataset.records, 1):
        try:
            content = record.path.read_bytes()
            by_hash.setdefault(hashlib.sha256(content).hexdigest(), []).append(record)
            size = decode_lone(content).shape[:2]
        except (ImageError, OSError) as error:
            where = f"{reading.shown(record.path)} cannot be read: {error}"
            reading.problem("unreadable image", where, record.path)
        else:
            if record.label == 1 and record.has_mask:
                _read_mask(reading, dataset.info, record, (size[0], size[1]))
        if progress is not None:
            progress(done, len(dataset))
    for copies in by_hash.values():
        if len(copies) > 1:
            _report_copies(reading, copies)


def _read_mask(reading: Reading, info: DatasetInfo, record: ImageRecord, size: tuple[int, int]) -> None:
    image, where = reading.shown(record.path), record.mask or record.path
    try:
        if record.outline is not None:
            mask = record.outline.draw()
        else:
            assert record.mask is not None
            mask = read_mask(record.mask, threshold=info.mask_threshold)
    except ImageError as error:
        reading.problem("unreadable mask", f"{image}: {error}", where)
        return
    if mask.shape != size:
        sizes = f"{mask.shape[1]} x {mask.shape[0]}, the image {size[1]} x {size[0]}"
        reading.problem("mask of another size", f"the mask of {image} is {sizes}: {reading.shown(where)}", where)
    if not mask.any():
        limit = "no value above 0" if record.outline is None else "no pixel in any region"
        reading.problem("empty mask", f"{image} is anomalous, but its mask has {limit}", where)


def _report_copies(reading: Reading, copies: list[ImageRecord]) -> None:
    """Identical files: with both labels one of them is wrong; with one label the image counts twice."""
    names = " = ".join(reading.shown(record.path) for record in copies)
    if len({record.label for record in copies}) > 1:
        reading.problem("identical, normal and anomalous", names, copies[0].path)
    else:
        reading.note("identical files", names, copies[0].path)


def _pair(counts: Counts) -> str:
    return f"{counts[0]:,} / {counts[1]:,}"
