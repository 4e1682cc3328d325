"""Atomic writes and locks."""

from __future__ import annotations

import pytest

from headclip.errors import InputError
from headclip.files import file_hash, sole_writer, write_atomically


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_hash_is_of_the_content(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")
    (tmp_path / "b").write_bytes(b"other")
    assert file_hash(tmp_path / "a") != file_hash(tmp_path / "b")


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path):
    path = tmp_path / "a.safetensors"
    with sole_writer(path), pytest.raises(InputError, match="another process is writing"), sole_writer(path):
        pass
    with sole_writer(path):
        pass
    assert list(tmp_path.iterdir()) == []
