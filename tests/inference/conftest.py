"""Folders of small pictures, good and bad."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference.pictures import write_bad_files, write_pictures


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder `in` with twelve pictures in two subfolders."""
    return write_pictures(tmp_path / "in", 12)


@pytest.fixture
def bad_files(pictures) -> dict[str, str]:
    """Broken files beside the pictures: name to a part of the reason."""
    return write_bad_files(pictures)


@pytest.fixture
def picture_of() -> Callable[[Path], np.ndarray]:
    return lambda path: np.asarray(Image.open(path).convert("RGB"))
