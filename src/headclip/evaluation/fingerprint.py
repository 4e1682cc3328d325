"""One hash for a dataset as it was scored: its images, masks and labels, whatever their order and place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from headclip.data.records import ImageRecord
from headclip.files import file_hash


def dataset_fingerprint(records: Iterable[ImageRecord]) -> str:
    """SHA-256 (hex) over the content of every image with its label, category and mask."""
    return fingerprint_of(record_line(record) for record in records)


def record_line(record: ImageRecord) -> str:
    """What one image adds to the fingerprint; lines made in different places can be put together."""
    return f"{_hash(record.path)} {truth_line(record)}"


def truth_line(record: ImageRecord) -> str:
    """The part of `record_line` that does not read the image: label, category and mask."""
    mask = _hash(record.mask) if record.mask is not None else repr(record.outline)
    return f"{record.label} {record.category} {mask}"


def fingerprint_of(lines: Iterable[str]) -> str:
    """The fingerprint of the images with these lines."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _hash(path: Path) -> str:
    try:
        if path.is_dir():
            return " ".join(file_hash(file) for file in sorted(path.iterdir()) if file.is_file())
        return file_hash(path)
    except OSError:
        return "unreadable"
