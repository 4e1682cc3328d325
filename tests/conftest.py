"""What holds for the whole run of the tests, and folders of small pictures, good and bad."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference.pictures import write_bad_files, write_pictures


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """Say how a test process of pytest-xdist ended that was lost: it may have had no chance to say anything itself."""
    process = getattr(node.gateway._io, "popen", None)
    if not error or process is None:
        return
    try:
        status = process.wait(10)
    except subprocess.TimeoutExpired:
        how = "it has not ended, but answers no more"
    else:
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    node.config.get_terminal_writer().line(f"\nlost {node.gateway.id}: {how}")


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
