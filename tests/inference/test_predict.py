"""A folder of images becomes a run folder, whatever is in it and whatever happens on the way."""

from __future__ import annotations

import csv
import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headclip.errors import InputError
from headclip.inference.predict import Progress, predict_run
from headclip.runs.files import JOURNAL, MARKS, RunFolderError
from headclip.runs.run import COLUMNS, Row, Run
from headclip.web.marks import Marks
from inference.fake_detector import FakeDetector, FakePrediction


def timeless(rows) -> list[Row]:
    return [replace(row, seconds=None) for row in rows]


def test_rows_maps_and_files(pictures, tmp_path, picture_of):
    out = tmp_path / "run"
    summary = predict_run(FakeDetector(), [pictures], out, arguments={"image_size": 240})
    run = Run.open(out)
    assert run.finished
    assert tuple(run.rows) == summary.rows
    assert [row.path for row in run.rows[:3]] == ["left/part 1.png", "left/part 3.png", "left/part 5.png"]
    assert len(run.ok) == 12
    for row in run.rows:
        picture = picture_of(run.image_path(row))
        assert (row.height, row.width) == picture.shape[:2]
        expected = picture.astype(np.float32).mean(axis=2) / 255
        assert np.abs(run.load_map(row) - expected).max() <= 1 / 65535
        assert row.score == pytest.approx(expected.mean(), abs=1e-6)
        assert row.global_score == pytest.approx(row.score / 2)
        assert row.local_score == pytest.approx(row.score / 3)
        assert row.map == f"maps/{row.path}.png"
        for picture_file in (run.overlay_path(row), run.preview_path(row)):
            with Image.open(picture_file) as image:
                assert image.size == (row.width, row.height)
    assert run.settings["backbone"]["name"] == "fake"
    assert run.facts["arguments"] == {"image_size": 240}
    assert run.facts["counts"] == {"images": 12, "ok": 12, "failed": 0}
    assert run.facts["versions"]["python"].count(".") == 2
    assert not (out / ".tmp").exists()
    assert summary.top(2) == sorted(run.rows, key=lambda row: -row.score)[:2]


def test_tables_agree(pictures, bad_files, tmp_path):
    summary = predict_run(FakeDetector(), [pictures], tmp_path / "run")
    lines = pq.read_table(tmp_path / "run/results.parquet").to_pylist()
    assert [Row(**line) for line in lines] == list(summary.rows)
    with (tmp_path / "run/results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert tuple(table[0]) == COLUMNS
    for line, row in zip(table, summary.rows, strict=True):
        assert line["path"] == row.path
        assert line["status"] == row.status
        assert line["reason"] == (row.reason or "")
        assert line["score"] == ("" if row.score is None else f"{row.score:.6f}")


def test_bad_files_are_rows(pictures, bad_files, tmp_path):
    summary = predict_run(FakeDetector(), [pictures], tmp_path / "run")
    assert len(summary.ok) == 12
    assert {row.path for row in summary.failed} == set(bad_files)
    for row in summary.failed:
        assert bad_files[row.path] in row.reason
        assert "\n" not in row.reason
        assert {value for key, value in asdict(row).items() if key not in ("path", "status", "reason")} == {None}
    with pytest.raises(RunFolderError, match="has no map"):
        Run.open(tmp_path / "run").load_map(summary.failed[0])


def test_a_run_of_nothing_but_bad_files_is_still_a_run(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").touch()
    summary = predict_run(FakeDetector(), [tmp_path / "in"], tmp_path / "run")
    assert (len(summary.ok), len(summary.failed)) == (0, 1)
    assert summary.report.is_file()


def test_names_do_not_collide(tmp_path):
    for index, name in enumerate(("x/a.png", "x/a.jpg", "x/a.png.png", "y/a.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (16, 16), (40 * index,) * 3).save(path)
    summary = predict_run(FakeDetector(), [tmp_path / "x", tmp_path / "y"], tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert len({row.map for row in summary.rows}) == 4
    brightness = [round(float(run.load_map(row).mean()) * 255) for row in summary.rows]
    assert {row.path: value for row, value in zip(summary.rows, brightness, strict=True)} == {
        "x/a.png": 0,
        "x/a.jpg": 40,
        "x/a.png.png": 80,
        "y/a.png": 120,
    }


def test_a_name_that_blocks_another_is_a_failed_row(tmp_path):
    for name in ("a.png", "a.png.png/b.png"):  # maps/a.png.png cannot be a file and a folder
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "in" / name)
    summary = predict_run(FakeDetector(batch_size=1), [tmp_path / "in"], tmp_path / "run")
    assert [row.status for row in summary.rows].count("failed") == 1
    assert "another image's files" in summary.failed[0].reason


class Moody(FakeDetector):
    """Fails on batches with a bright picture, and on the bright picture itself."""

    def __init__(self, error: Exception, alone: bool) -> None:
        super().__init__()
        self.error = error
        self.alone = alone

    def predict_arrays(self, images, /):
        if any(image.max() > 150 for image in images) and (self.alone or len(images) > 1):
            self.batches.append(-len(images))
            raise self.error
        return super().predict_arrays(images)


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried"), MemoryError(), ValueError("odd")])
def test_a_failing_batch_is_tried_one_by_one(pictures, tmp_path, error):
    detector = Moody(error, alone=False)
    summary = predict_run(detector, [pictures], tmp_path / "run")
    assert len(summary.ok) == 12
    assert min(detector.batches) < -1
    plain = predict_run(FakeDetector(), [pictures], tmp_path / "plain")
    assert timeless(summary.rows) == timeless(plain.rows)


def test_after_running_out_of_memory_batches_are_smaller(pictures, tmp_path):
    detector = Moody(MemoryError(), alone=False)
    predict_run(detector, [pictures], tmp_path / "run")
    first = next(index for index, size in enumerate(detector.batches) if size < 0)
    assert max(abs(size) for size in detector.batches[first + 1 :]) <= -detector.batches[first] // 2


def test_an_image_that_the_model_fails_on_is_a_row(pictures, tmp_path):
    summary = predict_run(Moody(ValueError("odd\nimage"), alone=True), [pictures], tmp_path / "run")
    assert 0 < len(summary.failed) < 12
    assert {row.reason for row in summary.failed} == {"the model failed: ValueError: odd"}
    summary = predict_run(
        Moody(RuntimeError("DefaultCPUAllocator: can't allocate memory"), alone=True),
        [pictures],
        tmp_path / "run2",
    )
    assert all("not enough memory" in row.reason for row in summary.failed)


@pytest.mark.parametrize("wrong", ["nan score", "nan map", "shape", "count"])
def test_nonsense_from_the_model_is_a_failed_row(pictures, tmp_path, wrong):
    class Wrong(FakeDetector):
        def _predict(self, image):
            good = super()._predict(image)
            if wrong == "nan score":
                return replace(good, score=float("nan"))
            if wrong == "nan map":
                return replace(good, anomaly_map=np.full_like(good.anomaly_map, np.nan))
            return FakePrediction(0.5, 0.5, 0.5, np.zeros((3, 3), np.float32))

        def predict_arrays(self, images, /):
            return super().predict_arrays(images)[: 0 if wrong == "count" else None]

    summary = predict_run(Wrong(), [pictures], tmp_path / "run")
    assert len(summary.failed) == 12


def test_progress_counts_everything_once(pictures, bad_files, tmp_path):
    seen: list[Progress] = []
    predict_run(FakeDetector(), [pictures], tmp_path / "run", progress=seen.append)
    judging = [event for event in seen if event.stage == "judging"]
    assert [event.done for event in judging] == sorted(event.done for event in judging)
    assert (judging[0].done, judging[-1].done, judging[-1].total, judging[-1].failed) == (0, 17, 17, 5)
    assert [event.done for event in seen if event.stage == "rendering"] == list(range(1, 13))


def test_resume_judges_only_what_is_missing(pictures, bad_files, tmp_path):
    out = tmp_path / "run"
    first = predict_run(FakeDetector(), [pictures], out)
    Image.new("RGB", (20, 20), "white").save(pictures / "bad/empty.png")  # mended since
    (out / first.ok[0].map).unlink()
    second_map = out / first.ok[1].map
    second_map.write_bytes(second_map.read_bytes()[:-100])
    fourth_preview = Run.open(out).preview_path(first.ok[3])
    fourth_preview.write_bytes(fourth_preview.read_bytes()[:-100])
    Image.new("RGB", (20, 20), "grey").save(pictures / first.ok[2].path)  # changed
    os.utime(pictures / first.ok[4].path, ns=(1, 1))  # touched: its content is what was judged
    (pictures / "new.png").write_bytes((pictures / first.ok[3].path).read_bytes())
    detector = FakeDetector()
    second = predict_run(detector, [pictures], out, resume=True)
    assert sum(detector.batches) == 6  # the mended, two without map, one without preview, the changed, the new
    assert (second.judged, second.skipped) == (10, 8)
    assert len(second.failed) == 4
    assert {row.path for row in second.ok} == {row.path for row in first.ok} | {"bad/empty.png", "new.png"}
    again = FakeDetector()
    predict_run(again, [pictures], out, resume=True)
    assert again.batches == []


def test_resume_keeps_rows_of_other_inputs(pictures, tmp_path):
    out = tmp_path / "run"
    predict_run(FakeDetector(), [str(pictures / "**/*1*.png")], out)
    summary = predict_run(FakeDetector(), [str(pictures / "**/*2*.png")], out, resume=True)
    assert sorted(row.path for row in summary.rows) == [
        "left/part 1.png",
        "left/part 11.png",
        "right/part 10.png",
        "right/part 2.png",
    ]


def test_damaged_results_of_other_inputs_become_failed_rows(pictures, tmp_path):
    out = tmp_path / "run"
    first = predict_run(FakeDetector(), [str(pictures / "**/*1*.png")], out)
    (out / first.rows[0].map).unlink()
    second = predict_run(FakeDetector(), [str(pictures / "**/*2*.png")], out, resume=True)
    assert [row.path for row in second.failed] == [first.rows[0].path]
    assert "damaged; judge it again" in second.failed[0].reason
    third = predict_run(FakeDetector(), [pictures], out, resume=True)
    assert len(third.ok) == 12


def test_resume_needs_the_same_settings_and_root(pictures, tmp_path):
    out = tmp_path / "run"
    predict_run(FakeDetector(), [pictures], out)
    before = (out / "run.json").read_bytes()
    with pytest.raises(RunFolderError, match=r"backbone\.name 'fake' there, 'other' now.*--overwrite"):
        predict_run(FakeDetector("other"), [pictures], out, resume=True)
    with pytest.raises(RunFolderError, match="judged images under"):
        predict_run(FakeDetector(), [pictures / "left"], out, resume=True)
    assert (out / "run.json").read_bytes() == before
    predict_run(FakeDetector(batch_size=1), [pictures], out, resume=True)  # batches change no result


def test_overwrite_leaves_nothing_behind_and_nothing_else_touched(pictures, tmp_path):
    out = tmp_path / "run"
    predict_run(FakeDetector(), [pictures], out)
    (out / "my notes.txt").write_text("keep")
    Marks(out).set(Run.open(out).rows[0].path, "miss")  # of an image that is not the new run's, or another of its name
    for end in ("-wal", "-shm", "-journal"):
        (out / f"{MARKS}{end}").touch()
    summary = predict_run(FakeDetector("other"), [pictures / "left"], out, overwrite=True)
    assert len(summary.rows) == 6
    assert sorted(path.name for path in (out / "maps").rglob("*.png")) == sorted(
        Path(row.map).name for row in summary.rows
    )
    assert (out / "my notes.txt").read_text() == "keep"
    assert Marks(out).all() == {}
    assert list(out.glob(f"{MARKS}*")) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [({"resume": True}, "copy it and name the copy"), ({"overwrite": True}, "choose another --out")],
)
def test_a_run_that_cannot_be_written(pictures, tmp_path, options, words):
    out = tmp_path / "run"
    predict_run(FakeDetector(), [pictures], out)
    (out / JOURNAL).unlink()
    (out / JOURNAL).mkdir()  # root writes where others may not, but nobody can write a file here
    with pytest.raises(RunFolderError, match=f"cannot write to .*{words}"):
        predict_run(FakeDetector(), [pictures], out, **options)


@pytest.mark.parametrize(
    "content", [b"", b'{"format": "headclip-run", "sta', b"\0" * 700, b'{"format": "headclip-run"}', None]
)
def test_a_run_whose_facts_are_damaged_is_known_by_its_journal(pictures, tmp_path, content):
    """As older versions may have left it after a power failure."""
    out = tmp_path / "run"
    rows = predict_run(FakeDetector(), [pictures], out).rows
    (out / "run.json").unlink() if content is None else (out / "run.json").write_bytes(content)
    for options in ({}, {"resume": True}):
        with pytest.raises(RunFolderError, match=r"run\.json is damaged, .* --overwrite judges all anew"):
            predict_run(FakeDetector(), [pictures], out, **options)
    if content is not None:
        with pytest.raises(RunFolderError, match=r"run\.json is damaged, or no run's"):
            Run.open(out)
    again = predict_run(FakeDetector(), [pictures], out, overwrite=True)
    assert timeless(again.rows) == timeless(rows)
    assert again.judged == len(rows)
    assert Run.open(out).finished


def test_a_damaged_run_in_which_nothing_was_judged_is_gone_on_with(pictures, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").touch()
    (out / JOURNAL).touch()
    assert predict_run(FakeDetector(), [pictures], out, resume=True).judged == 12


def test_facts_of_another_program_are_not_taken_for_damaged_ones(pictures, tmp_path):
    predict_run(FakeDetector(), [pictures], tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"format": "another"}')
    with pytest.raises(RunFolderError, match="holds no run of headclip"):
        predict_run(FakeDetector(), [pictures], tmp_path / "run", overwrite=True)


@pytest.mark.parametrize("part", ["", "maps"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_a_refused_overwrite_leaves_the_run_as_it_was(pictures, tmp_path, monkeypatch, part, number):
    out = tmp_path / "run"
    predict_run(FakeDetector(), [pictures], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    mkdir, write = Path.mkdir, Path.write_bytes

    def make(path, *args, **more):
        if path.parent == out / part and number == errno.EACCES:  # root may write anywhere
            raise OSError(number, os.strerror(number))
        return mkdir(path, *args, **more)

    def fill(path, content):
        if path.parent.parent == out / part and number == errno.ENOSPC:
            raise OSError(number, os.strerror(number))
        return write(path, content)

    monkeypatch.setattr("pathlib.Path.mkdir", make)
    monkeypatch.setattr("pathlib.Path.write_bytes", fill)
    with pytest.raises(RunFolderError, match=r"cannot write to .*the run in it is untouched"):
        predict_run(FakeDetector(), [pictures], out, overwrite=True)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert predict_run(FakeDetector(), [pictures], out, resume=True).judged == 0


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_with_something_else_is_never_touched(pictures, tmp_path, options):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.tex").write_text("years")
    with pytest.raises(RunFolderError, match="holds no run of headclip; choose"):
        predict_run(FakeDetector(), [pictures], out, **options)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_other_refusals(pictures, tmp_path):
    out = tmp_path / "run"
    predict_run(FakeDetector(), [pictures], out)
    with pytest.raises(RunFolderError, match=r"already holds a finished run; add --resume .* --overwrite"):
        predict_run(FakeDetector(), [pictures], out)
    with pytest.raises(RunFolderError, match="exclude each other"):
        predict_run(FakeDetector(), [pictures], out, resume=True, overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="is a file"):
        predict_run(FakeDetector(), [pictures], tmp_path / "file")
    with pytest.raises(InputError, match="does not exist"):
        predict_run(FakeDetector(), [tmp_path / "nowhere"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(RunFolderError, match="holds no run"):
        Run.open(tmp_path)


def test_a_run_inside_the_input_is_not_judged_again(pictures):
    predict_run(FakeDetector(), [pictures], pictures / "run")
    summary = predict_run(FakeDetector(), [pictures], pictures / "run", resume=True)
    assert len(summary.rows) == 12


def test_two_writers_are_refused(pictures, tmp_path):
    pytest.importorskip("fcntl")

    class Nested(FakeDetector):
        def predict_arrays(self, images, /):
            with pytest.raises(RunFolderError, match="another headclip is writing"):
                predict_run(FakeDetector(), [pictures], tmp_path / "run", resume=True)
            return super().predict_arrays(images)

    assert len(predict_run(Nested(), [pictures], tmp_path / "run").ok) == 12


def test_a_newer_format_is_refused(pictures, tmp_path):
    predict_run(FakeDetector(), [pictures], tmp_path / "run")
    facts = json.loads((tmp_path / "run/run.json").read_text()) | {"version": 99}
    (tmp_path / "run/run.json").write_text(json.dumps(facts))
    with pytest.raises(RunFolderError, match="newer headclip"):
        Run.open(tmp_path / "run")


def test_copies_that_were_renamed_leave_no_rows_behind(tmp_path):
    old, new = tmp_path / "in/old", tmp_path / "in/new"
    old.mkdir(parents=True)
    for name, level in (("a", 90), ("b", 90), ("c", 40)):
        Image.new("L", (24, 20), level).save(old / f"{name}.png")
    predict_run(FakeDetector(), [tmp_path / "in"], tmp_path / "run")
    old.rename(new)
    detector = FakeDetector()
    summary = predict_run(detector, [tmp_path / "in"], tmp_path / "run", resume=True)
    assert detector.batches == []
    assert [(row.path, row.status) for row in summary.rows] == [(f"new/{name}.png", "ok") for name in "abc"]
    assert not list((tmp_path / "run/maps/old").glob("*"))
