"""Atomic writes and locks."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from headclip.errors import InputError, OutputError
from headclip.files import file_hash, prove_place, whole_file, write_atomically
from headclip.locks import sole_writer
from headclip.version import software_versions


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
def test_a_private_file_is_so_from_its_first_byte_on(tmp_path):
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    with whole_file(path, private=True) as handle:
        handle.write(b"secret")
        (partial,) = (other for other in tmp_path.iterdir() if other != path)
        assert partial.stat().st_mode & 0o077 == 0
    assert path.read_bytes() == b"secret"
    assert path.stat().st_mode & 0o077 == 0


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


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.json").write_text("old")
    for name, target in (("link.json", "real/a.json"), ("dangling.json", "real/new.json")):
        (tmp_path / name).symlink_to(target)
        write_atomically(tmp_path / name, "new", follow=True)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / target).read_text() == "new"
    assert {path.name for path in (tmp_path / "real").iterdir()} == {"a.json", "new.json"}


def test_a_link_in_a_folder_of_somebody_elses_leads_nowhere(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/results.json").symlink_to("../mine.txt")
    write_atomically(tmp_path / "theirs/results.json", "new")
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "theirs/results.json").is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", ["pipe", "link"])
def test_a_pipe_is_written_to_and_stays(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)  # before the writer, who would wait for it
    try:
        write_atomically(tmp_path / name, "content", follow=True)
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_place_is_proved_without_a_trace(tmp_path):
    (tmp_path / "old.json").write_text("old")
    (tmp_path / "link").symlink_to("real/new.json")
    for name in ("old.json", "new.json", "not/there/yet.json", "link"):
        prove_place(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "old.json"]
    assert (tmp_path / "old.json").read_text() == "old"
    prove_place(Path(os.devnull))


def test_a_place_that_cannot_be_written_is_told_of_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*new\.json"):
        prove_place(tmp_path / "file/new.json")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"cannot write .*new\.json: Permission denied; get permission"):
        prove_place(tmp_path / "new.json")


def refuse(path, *args, **options):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_a_link_to_itself_is_an_error_with_words(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "loop", "new", follow=True)
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("letter", ["x", "é", "𠀀"])
def test_names_may_be_as_long_as_the_file_system_takes(tmp_path, letter):
    name = letter * (251 // len(letter.encode())) + ".png"
    write_atomically(tmp_path / name, "content")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_versions_leave_out_what_is_installed_under_another_name():
    found = software_versions("torch", "no-such-package")
    assert set(found) == {"headclip", "python", "torch"}
    assert all(found.values())
