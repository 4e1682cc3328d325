"""A killed process leaves a readable run folder, and --resume finishes it as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from headclip.inference.predict import predict_run
from headclip.runs.run import Run, is_run_folder
from inference.fake_detector import FakeDetector

# Judges argv[1] into argv[2]; dies before it puts file number argv[3] in place (never, if that is negative).
SCRIPT = """
import os, sys
sys.path[:0] = [sys.argv[4]]
from dying import die_before_file
from headclip.inference.predict import predict_run
from inference.fake_detector import FakeDetector

last = int(sys.argv[3])
die_before_file(last, by_signal=False)
seconds = 0.05 if last < 0 else 0.0
predict_run(FakeDetector(seconds=seconds), [sys.argv[1]], sys.argv[2], resume=os.path.exists(sys.argv[2]))
"""


def start(pictures: Path, out: Path, last: int) -> subprocess.Popen:
    tests = Path(__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(pictures), str(out), str(last), str(tests)])


def timeless(rows) -> list:
    return [replace(row, seconds=None) for row in rows]


def check_resumed(pictures: Path, out: Path) -> None:
    resumed = predict_run(FakeDetector(), [pictures], out, resume=True)
    clean = predict_run(FakeDetector(), [pictures], out.with_name("clean"))
    assert timeless(resumed.rows) == timeless(clean.rows)
    assert timeless(Run.open(out).rows) == timeless(clean.rows)
    assert Run.open(out).facts["scale"] == Run.open(clean.folder).facts["scale"]
    for kind in ("maps", "overlays", "previews"):
        files = [file for file in (clean.folder / kind).rglob("*") if file.is_file()]
        assert len(files) == 12
        for file in files:
            assert (out / file.relative_to(clean.folder)).read_bytes() == file.read_bytes()
    assert not (out / ".tmp").exists()


def test_sigkill_in_the_middle(pictures, tmp_path):
    out = tmp_path / "run"
    process = start(pictures, out, -1)
    journal = out / "progress.jsonl"
    deadline = time.monotonic() + 30
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 4):
        assert time.monotonic() < deadline, "the run did not get anywhere"
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    run = Run.open(out)
    assert not run.finished
    assert 4 <= len(run.ok) < 12
    for row in run.ok:
        assert run.load_map(row).shape == (row.height, row.width)

    with journal.open("ab") as file:  # a line that the kill cut short
        file.write(b'{"row": {"path": "left/part')
    assert len(Run.open(out).ok) == len(run.ok)
    check_resumed(pictures, out)


# The order: run.json, 12 x (map, preview), results.csv, 12 overlays, results.parquet, results.csv,
# report.html, run.json.
@pytest.mark.parametrize("last", [1, 2, 12, 26, 32, 40, 42])
def test_death_before_any_file(pictures, tmp_path, last):
    out = tmp_path / "run"
    assert start(pictures, out, last).wait() == 9
    assert is_run_folder(out) == (last > 1)
    if last > 1:
        run = Run.open(out)
        assert not run.finished
        assert all(run.load_map(row).shape == (row.height, row.width) for row in run.ok)
    check_resumed(pictures, out)


def test_ctrl_c_leaves_a_resumable_run(pictures, tmp_path):
    class Interrupted(FakeDetector):
        def predict_arrays(self, images, /):
            if sum(self.batches) >= 8:
                raise KeyboardInterrupt
            return super().predict_arrays(images)

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        predict_run(Interrupted(), [pictures], out)
    run = Run.open(out)
    assert run.facts["status"] == "interrupted"
    assert len(run.ok) == 8  # what the model had judged is kept
    assert (out / "results.csv").read_text().count("\n") == 9
    check_resumed(pictures, out)


def test_table_is_refreshed_on_the_way(pictures, tmp_path):
    lines = []

    class Looking(FakeDetector):
        def predict_arrays(self, images, /):
            table = tmp_path / "run/results.csv"
            lines.append(table.read_text().count("\n") if table.exists() else 0)
            return super().predict_arrays(images)

    predict_run(Looking(batch_size=2), [pictures], tmp_path / "run", refresh_seconds=0.0)
    assert lines[-1] > lines[2] > 0
