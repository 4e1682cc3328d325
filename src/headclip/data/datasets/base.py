"""What is known of a dataset beforehand, and an opened one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headclip.data.discover import printable
from headclip.data.reading import Finding
from headclip.data.records import ImageRecord, record_mask

Domain = Literal["industrial", "medical", "any"]
Level = Literal["both", "pixel", "image"]
Counts = tuple[int, int]
"""Test images: normal, anomalous."""


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset, or one of the versions that go by the same name in the literature.

    family: the name that all versions share, and under which published figures are kept. paper: the name in
    the HeadCLIP paper's tables if this is the version that stands there by all evidence, else "". level:
    which metrics are defined. normal and anomalous: test images expected, None where not known; counts: the
    same by category. known: counts by which other versions and splits are recognised. mask_threshold: 8-bit
    mask values above it are anomalous. layout: the folders expected, for messages.
    """

    name: str
    title: str
    domain: Domain
    level: Level
    layout: str
    categories: tuple[str, ...] = ()
    normal: int | None = None
    anomalous: int | None = None
    counts: Mapping[str, Counts] = field(default_factory=lambda: MappingProxyType({}))
    known: Mapping[str, Counts] = field(default_factory=lambda: MappingProxyType({}))
    mask_threshold: int = 0
    licence: str = "not stated; see the homepage"
    source: str = ""
    family: str = ""
    paper: str = ""
    aliases: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Dataset:
    """The test images of one opened dataset.

    findings: what the user should know of this copy; errors never get here unless `open_dataset` was told to
    be lenient. listing: the file that names the images, where one was opened in place of a folder.
    """

    info: DatasetInfo
    root: Path
    records: list[ImageRecord] = field(repr=False)  # thousands
    findings: tuple[Finding, ...] = field(default=(), repr=False)
    listing: Path | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def name(self) -> str:
        """The name under which it is registered."""
        return self.info.name

    @property
    def categories(self) -> list[str]:
        """The categories that are present: known ones in the dataset's own order, then the others."""
        present = dict.fromkeys(record.category for record in self.records)
        return [name for name in self.info.categories if name in present] + [
            name for name in present if name not in self.info.categories
        ]

    @property
    def missing_categories(self) -> list[str]:
        """Categories of the dataset that this copy does not have."""
        present = {record.category for record in self.records}
        return [name for name in self.info.categories if name not in present]

    def of(self, category: str) -> list[ImageRecord]:
        """The records of one category."""
        return [record for record in self.records if record.category == category]

    def counts(self) -> dict[str, Counts]:
        """Normal and anomalous images of each category; images without a label are in neither number."""
        found: dict[str, Counts] = dict.fromkeys(self.categories, (0, 0))
        for record in self.records:
            normal, anomalous = found[record.category]
            found[record.category] = (normal + (record.label == 0), anomalous + (record.label == 1))
        return found

    def total(self) -> Counts:
        """Normal and anomalous images of all categories."""
        pairs = self.counts().values()
        return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)

    def mask(self, record: ImageRecord, size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """(H, W) bool at `size` = (height, width), True where anomalous; all False for a normal image.

        None where the dataset does not mark the anomalous pixels of this image.

        Raises:
            ImageError: the mask cannot be read.
        """
        return record_mask(record, size, self.info.mask_threshold)

    def relative(self, path: Path) -> str:
        """A path as tables show it: relative to the dataset, with `/`; bytes that are no UTF-8 are escapes."""
        return printable((path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix())
