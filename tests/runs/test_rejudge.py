"""Judging a finished run again: the same as judging it so at once, and never half done."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headclip.data.discover import discover
from headclip.data.records import ImageRecord
from headclip.inference.predict import predict_run
from headclip.judgement import Calibration, CalibrationError, Criteria, Promise, RegionRules, find_regions
from headclip.judgement.calibrate import calibrate
from headclip.judgement.choosing import Judging
from headclip.judgement.scored import score_images
from headclip.runs.commit import READY
from headclip.runs.files import JOURNAL, RunFolderError
from headclip.runs.labels import match_labels
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Run
from headclip.runs.scored import score_run
from headclip.runs.writer import RunWriter
from inference.fake_detector import FakeDetector
from inference.pictures import write_bad_files, write_pictures

BY_HAND = Judging(threshold=0.2, pixel_threshold=0.6, min_area=2, ignore_border=1, pixel_mm=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with pictures and broken files."""
    folder = write_pictures(tmp_path_factory.mktemp("images") / "in", 12)
    write_bad_files(folder)
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory) -> Path:
    """A run without thresholds; to be copied, not changed."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    predict_run(FakeDetector(), [folder], out)
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def criteria(threshold: float = 0.2, pixel: float | None = 0.6) -> Criteria:
    return Criteria.manual(threshold, pixel, rules=RegionRules(2, 1), pixel_mm=0.5)


def state(folder: Path) -> dict[str, object]:
    """Everything that judging writes, without times."""
    opened = Run.open(folder)
    page = opened.report.read_text()
    return {
        "rows": [replace(row, seconds=None) for row in opened.rows],
        "csv": [row["verdict"] + row["regions"] for row in csv.DictReader((folder / "results.csv").open())],
        "regions": opened.load_regions(),
        "masks": {p.relative_to(folder): p.read_bytes() for p in (folder / "masks").rglob("*.png")},
        "judgement": opened.judgement,
        "images": json.loads(page.split('<script id="data" type="application/json">')[1].split("</script>")[0]),
    }


def test_the_same_as_a_fresh_run_at_that_threshold(folder, run, tmp_path):
    predict_run(FakeDetector(), [folder], tmp_path / "fresh", judging=BY_HAND)
    rejudge(run, criteria(), note=Run.open(tmp_path / "fresh").judgement["note"])
    fresh, again = state(tmp_path / "fresh"), state(run)
    assert again == fresh
    assert any(fresh["regions"].values())
    assert {row.verdict for row in fresh["rows"] if row.status == "ok"} == {"ok", "defect"}
    assert all(row.verdict is None and row.regions is None for row in fresh["rows"] if row.status == "failed")


def test_there_and_back(run):
    before = state(run)
    done = rejudge(run, criteria())
    assert len(done.changed) == 12
    assert state(run) != before
    rejudge(run, None)
    after = state(run)
    assert after["judgement"] is None
    assert {key: after[key] for key in after} == before


def test_regions_and_masks_are_those_of_the_maps(run):
    rejudge(run, criteria())
    opened = Run.open(run)
    regions = opened.load_regions()
    for row in opened.ok:
        found = find_regions(opened.load_map(row), 0.6, RegionRules(2, 1), pixel_mm=0.5)
        assert regions.get(row.path, ()) == found
        assert row.regions == len(found)
        assert row.verdict == ("defect" if row.score > 0.2 else "ok")
        assert opened.mask_path(row).exists() == bool(found)
        if found:
            with Image.open(opened.mask_path(row)) as mask:
                assert mask.size == (row.width, row.height)
                assert np.asarray(mask).sum() == sum(region.area for region in found)
    assert opened.judgement["regions"] == sum(map(len, regions.values()))
    assert sum(opened.judgement["verdicts"].values()) == len(opened.ok)


def test_a_run_gives_the_same_calibration_as_its_images(folder, run):
    images = discover([folder])
    for rules in (RegionRules(), RegionRules(3, 1)):
        by_model = score_images(FakeDetector(), images.files, rules)
        by_run = score_run(Run.open(run), rules)
        assert by_run.names == by_model.names
        assert by_run.scores == by_model.scores
        assert by_run.levels == by_model.levels
        assert set(by_run.failed) == set(by_model.failed)


def test_the_promise_on_the_calibration_images_themselves(run):
    """No more than the rank allows of the images lie above either threshold that was made from them."""
    opened = Run.open(run)
    found = calibrate(score_run(opened, RegionRules(2)), opened.settings, Promise(0.25))
    rejudge(run, found.criteria(), calibration=found)
    rows = Run.open(run).ok
    allowed = 12 - 10  # rank ceil(13 * 0.75) of 12
    assert sum(row.verdict != "ok" for row in rows) <= allowed
    assert sum(bool(row.regions) for row in rows) == allowed
    assert Calibration.from_values(Run.open(run).judgement["calibration"]) == found


def test_a_calibration_of_another_model_is_refused(run):
    opened = Run.open(run)
    before = state(run)
    other = calibrate(score_run(opened, RegionRules()), opened.settings | {"method": "other"}, Promise(0.25))
    with pytest.raises(CalibrationError, match="method other there, fake here"):
        rejudge(run, other.criteria(), calibration=other)
    assert state(run) == before


def test_labels_are_kept_and_counted(run):
    names = [row.path for row in Run.open(run).ok]
    labels = {name: int(index % 2) for index, name in enumerate(names)}
    rejudge(run, criteria(), labels=labels)
    figures = Run.open(run).judgement["labelled"]
    alarms = {row.path: row.score > 0.2 for row in Run.open(run).ok}
    assert figures["images"] == 12
    assert figures["caught"] == sum(alarms[name] and labels[name] for name in names)
    assert figures["false_alarms"] == sum(alarms[name] and not labels[name] for name in names)
    assert figures["recall"] == figures["caught"] / 6
    rejudge(run, criteria(0.0))
    assert Run.open(run).judgement["labelled"]["recall"] == 1.0
    assert Run.open(run).load_labels() == labels


def test_resuming_keeps_the_thresholds(folder, run):
    rejudge(run, criteria())
    judged = state(run)
    predict_run(FakeDetector(), [folder], run, resume=True)
    assert state(run) == judged


def test_a_resumed_run_that_was_killed_keeps_them_too(folder, run):
    rejudge(run, criteria())
    judged = state(run)
    with RunWriter(run, discover([folder]), FakeDetector().describe(), resume=True):
        pass  # leaves it interrupted
    assert not Run.open(run).finished
    predict_run(FakeDetector(), [folder], run, resume=True)
    assert state(run) == judged


def test_overwriting_does_not_keep_them(folder, run):
    rejudge(run, criteria(), labels={Run.open(run).ok[0].path: 1})
    predict_run(FakeDetector(), [folder], run, overwrite=True)
    assert Run.open(run).judgement is None
    assert Run.open(run).load_labels() == {}
    assert not (run / "masks").exists()


def test_a_run_of_an_older_headclip(run):
    """No peak in the table: maps are read, and the peak is there from then on."""
    import pyarrow.parquet as pq

    table = pq.read_table(run / "results.parquet").drop(["peak", "verdict", "regions"])
    pq.write_table(table, run / "results.parquet")
    assert all(row.peak is None for row in Run.open(run).rows)
    rejudge(run, criteria())
    assert all(row.peak == pytest.approx(float(Run.open(run).load_map(row).max())) for row in Run.open(run).ok)


def test_pictures_of_the_page_are_made_again_when_it_is_gone(run):
    rejudge(run, criteria())
    images = state(run)["images"]
    (run / "report.html").write_text("something else")
    rejudge(run, criteria())
    assert state(run)["images"] == images


def test_no_map_is_opened_that_stays_below(run, monkeypatch):
    read = []
    monkeypatch.setattr("headclip.runs.judging.read_levels", lambda path: read.append(path) or np.zeros((9, 9), "u2"))
    rejudge(run, criteria(pixel=0.99))
    assert read == []
    peaks = [row.peak for row in Run.open(run).ok]
    rejudge(run, criteria(pixel=sorted(peaks)[-3]))
    assert len(read) == 2


def test_an_unfinished_or_busy_run_is_refused(folder, run):
    writer = RunWriter(run, discover([folder]), FakeDetector().describe(), resume=True)
    with writer, pytest.raises(RunFolderError, match="not finished"):
        rejudge(run, criteria())
    with pytest.raises(RunFolderError):
        rejudge(folder, criteria())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_a_kill_leaves_the_old_or_the_new_state(run, tmp_path):
    """Dies before it moves file number 1, 2, 3, ... into place, until it does not die any more."""
    rejudge(run, criteria(0.3, 0.7))
    old = state(run)
    rejudge(Path(shutil.copytree(run, tmp_path / "new")), criteria())
    new = state(tmp_path / "new")
    seen = set()
    for last in range(1, 200):
        victim = Path(shutil.copytree(run, tmp_path / f"victim {last}"))
        if not _killed(victim, last):
            break
        undecided = (victim / READY).exists()
        found = state(victim)
        assert found in (old, new)
        seen.add((found == new, undecided))
        assert not (victim / READY).exists()
        rejudge(victim, criteria())
        assert state(victim) == new
        shutil.rmtree(victim)
    else:
        pytest.fail("never came to an end")
    assert seen == {(False, False), (True, True)}
    assert state(victim) == new


def _killed(folder: Path, last: int) -> bool:
    """Judge again in a forked process that dies at its move number `last`; whether it did."""
    child = os.fork()
    if child == 0:
        move, moves = Path.replace, iter(range(1, 10_000))

        def counting(self: Path, target: Path) -> Path:
            if next(moves) == last:
                os._exit(9)
            return move(self, target)

        Path.replace = counting  # type: ignore[method-assign]
        try:
            rejudge(folder, criteria())
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def record(path: Path, label: int | None) -> ImageRecord:
    return ImageRecord(path, label, None, "part")


def test_labels_find_their_images(folder, run, tmp_path):
    opened = Run.open(run)
    names = [row.path for row in opened.ok]
    here = [record(folder / name, index % 2) for index, name in enumerate(names)]
    wanted = {name: index % 2 for index, name in enumerate(names)}
    assert match_labels(opened, reversed(here), folder) == wanted
    moved = [record(tmp_path / "moved" / name, index % 2) for index, name in enumerate(names)]
    assert match_labels(opened, moved, tmp_path / "moved") == wanted
    flat = [record(tmp_path / "flat" / Path(name).name, index % 2) for index, name in enumerate(names)]
    assert match_labels(opened, flat, tmp_path / "flat") == wanted
    twice = [*flat[:2], record(tmp_path / "more" / Path(names[0]).name, 1), record(folder / "else.png", 1)]
    assert match_labels(opened, twice, tmp_path) == {names[1]: 1}
    assert match_labels(opened, [record(folder / names[0], None)], folder) == {}


def test_a_run_that_cannot_be_written_is_not_given_an_option_that_rejudge_lacks(run):
    (run / JOURNAL).unlink()
    (run / JOURNAL).mkdir()  # root writes where others may not, but nobody can write a file here
    with pytest.raises(RunFolderError, match="copy it and name the copy") as refused:
        rejudge(run, criteria())
    assert "--out" not in str(refused.value)
