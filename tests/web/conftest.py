"""Runs, uploads and applications for the tests of the server and its pages."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headclip.inference.predict import predict_run
from inference.fake_detector import FakeDetector
from inference.pictures import write_bad_files, write_pictures

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from starlette.testclient import TestClient

from headclip.web.app import AppOptions, create_app


def encoded(height: int = 40, width: int = 56, kind: str = "PNG", seed: int = 0) -> bytes:
    """A noisy picture as a file's content."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of twelve judged and five failed images."""
    pictures = write_pictures(tmp_path / "in", 12)
    write_bad_files(pictures)
    return predict_run(FakeDetector(), [pictures], tmp_path / "first run").folder


@pytest.fixture
def client() -> Iterator[Callable[..., Any]]:
    """A function from options to a client of a running application; all are closed at the end."""
    with ExitStack() as stack:

        def start(**options: Any) -> Any:
            app = create_app(AppOptions(**options))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield start
