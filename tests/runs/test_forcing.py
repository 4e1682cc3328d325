"""What a power failure must not empty is forced to disk before its name counts, and its name after that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headclip.files import write_atomically
from headclip.forcing import force_names
from headclip.inference.predict import predict_run
from headclip.judgement.choosing import Judging
from headclip.judgement.verdicts import Criteria
from headclip.runs.files import RunFolderError, write_atomic
from headclip.runs.rejudge import rejudge
from inference.fake_detector import FakeDetector
from inference.pictures import write_pictures

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are forced to disk on POSIX alone")
TABLES = {"run.json", "results.csv", "results.parquet", "report.html", "regions.jsonl"}


@pytest.fixture
def renamed(monkeypatch):
    """Names that files got -> whether content and folder were forced to disk, in that order around the renaming."""
    forced, last, found = set(), {}, {}
    fsync, replace = os.fsync, Path.replace

    def record_fsync(handle):
        number = os.fstat(handle).st_ino
        forced.add(number)
        for name in last.pop(number, []):
            found[name] = True
        fsync(handle)

    def record_replace(path, target):
        number, target = path.stat().st_ino, Path(target)
        found[target.name] = False
        if number in forced:
            last.setdefault(target.parent.stat().st_ino, []).append(target.name)
        return replace(path, target)

    monkeypatch.setattr("os.fsync", record_fsync)
    monkeypatch.setattr("pathlib.Path.replace", record_replace)
    return found


def test_tables_of_a_run_are_forced_and_single_maps_are_not(tmp_path, renamed):
    pictures = write_pictures(tmp_path / "in", 3)
    out = tmp_path / "run"
    predict_run(FakeDetector(), [pictures], out, judging=Judging(threshold=0.1, pixel_threshold=0.1))
    assert {name for name, lasting in renamed.items() if lasting} == TABLES
    assert len(renamed) > len(TABLES) + 3
    renamed.clear()
    rejudge(out, Criteria(0.2, 0.2, 0.2, pixel=0.2), labels={})
    lasting = {name for name, lasting in renamed.items() if lasting}
    assert lasting >= TABLES
    assert ".ready" in renamed


def test_files_of_single_results_are_forced(tmp_path, renamed):
    write_atomically(tmp_path / "calibration.json", "{}")
    assert renamed == {"calibration.json": True}


def test_a_disk_that_fails_when_names_are_forced_is_told_and_one_that_cannot_is_not(tmp_path, monkeypatch):
    def refuse(number):
        def fsync(handle):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("os.fsync", fsync)

    refuse(22)  # EINVAL: a file system that knows no such thing
    force_names(tmp_path)
    force_names(tmp_path / "none")
    refuse(5)  # EIO
    with pytest.raises(OSError, match="Input/output error"):
        force_names(tmp_path)
    with pytest.raises(RunFolderError, match=r"cannot write .*run.json: Input/output error"):
        write_atomic(tmp_path, "run.json", b"{}", force=True)
    assert not (tmp_path / "run.json").exists()
