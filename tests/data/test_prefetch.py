"""Decoding ahead: in order, within bounds, and never in the way of an early end."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from headclip.data import discover as discovering
from headclip.data.discover import discover
from headclip.data.prefetch import decode_ahead


def test_order_pixels_and_reasons(pictures, bad_files, picture_of):
    files = discover([pictures]).files
    items = list(decode_ahead(files, max_pixels=10_000, workers=3, max_images=2))
    assert [item.file for item in items] == list(files)
    for item in items:
        assert (item.size, item.mtime_ns) == (
            item.file.path.stat().st_size,
            item.file.path.stat().st_mtime_ns,
        )
        if item.file.name in bad_files:
            assert item.pixels is None
            assert bad_files[item.file.name] in (item.reason or "")
        else:
            np.testing.assert_array_equal(item.pixels, picture_of(item.file.path))


def test_vanished_file_is_a_reason(pictures):
    files = discover([pictures]).files
    files[3].path.unlink()
    items = list(decode_ahead(files, max_pixels=10_000))
    assert [item.reason for item in items if item.pixels is None] == ["the file does not exist"]


@pytest.mark.parametrize("limits", [{"max_images": 3}, {"max_bytes": 10_000}])
def test_no_more_is_held_than_allowed(pictures, monkeypatch, limits):
    started = []
    lock = threading.Lock()
    original = discovering.decode

    def counting(path, **options):
        with lock:
            started.append(path)
        return original(path, **options)

    monkeypatch.setattr(discovering, "decode", counting)
    ahead = decode_ahead(discover([pictures]).files, max_pixels=10_000, workers=2, **limits)
    next(ahead)
    time.sleep(0.1)
    assert len(started) <= 1 + 3 + 2  # taken, held, and one in each worker
    assert sum(1 for _ in ahead) == 11


def test_leaving_early_ends_the_threads(pictures):
    before = threading.active_count()
    ahead = decode_ahead(discover([pictures]).files, max_pixels=10_000)
    next(ahead)
    ahead.close()
    assert threading.active_count() == before


def test_an_unexpected_error_is_a_reason_too(pictures, monkeypatch):
    def broken(path, **options):
        raise RuntimeError("decoder bug")

    monkeypatch.setattr(discovering, "decode", broken)
    items = list(decode_ahead(discover([pictures]).files, max_pixels=10_000))
    assert {item.reason for item in items} == {"unexpected RuntimeError: decoder bug"}
