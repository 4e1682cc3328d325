"""The lock is whole, hashed and without addresses; the check of it notices what is not."""

from __future__ import annotations

import re
from pathlib import Path

import audit

LOCK = (Path(__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")


def test_every_entry_has_hashes_and_no_address():
    locked, wrong = audit.read_lock(LOCK)
    assert wrong == []
    assert {"torch", "numpy", "pillow", "safetensors", "fastapi", "uvicorn"} <= set(locked)
    assert not re.search(r"https?://|--index|--find-links|file://", LOCK)


def test_the_lock_and_the_constraints_name_the_same_versions():
    locked, _ = audit.read_lock(LOCK)
    for name, version in audit.pins().items():
        assert name not in locked or audit.public(locked[name]) == audit.public(version), name


def test_what_is_missing_would_be_noticed():
    _, wrong = audit.read_lock("a==1\nb @ https://x/b.whl\n--index-url https://x\nc>=2\n")
    assert len(wrong) == 4
