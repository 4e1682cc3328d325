"""A crew that works in the test's own process, so that most tests need no Ray."""

from __future__ import annotations

import pytest

from engine.engine_files import InlineCrew
from headclip.engine import crew, evaluating, predicting
from inference.pictures import write_bad_files, write_pictures


@pytest.fixture
def inline(monkeypatch):
    found = InlineCrew()
    for module in (predicting, evaluating):
        monkeypatch.setattr(module, "cluster", found.cluster)
        monkeypatch.setattr(module, "ask_one", found.ask_one)
    monkeypatch.setattr(crew, "_stream", found.stream)
    return found


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures and five broken files."""
    folder = write_pictures(tmp_path / "in", 12)
    write_bad_files(folder)
    return folder
