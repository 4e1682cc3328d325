"""A killed evaluation, resumed, ends with the same tables as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.evaluate_files import FakeEvaluated, mask, write_set
from headclip.data.datasets import open_dataset
from headclip.evaluation.evaluate import Options, evaluate
from headclip.inference.run_files import RunFolderError

# Evaluates argv[1] into argv[2]; dies by SIGKILL before it puts file number argv[3] in place.
SCRIPT = """
import sys, pathlib
sys.path[:0] = [sys.argv[4]]
from dying import die_before_file
from evaluation.evaluate_files import FakeEvaluated
from headclip.data.datasets import open_dataset
from headclip.evaluation.evaluate import Options, evaluate

die_before_file(int(sys.argv[3]))
options = Options(bootstrap=20, figures=False, worst=1)
evaluate(FakeEvaluated(batch_size=2), [open_dataset("folder", sys.argv[1])], pathlib.Path(sys.argv[2]), options)
"""
OPTIONS = {"bootstrap": 20, "figures": False, "worst": 1}
TABLES = ("tables.csv", "scores.csv", "tables.md", "tables.tex")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def clean(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean") / "e"
    evaluate(FakeEvaluated(), [open_dataset("folder", root)], out, Options(**OPTIONS))
    return out


# The order: results.json, run.json, 18 counts, run tables and page, run.json, tables
@pytest.mark.parametrize("last", [2, 11, 20, 26])
def test_resume_after_sigkill(root, clean, tmp_path, last):
    out = tmp_path / "e"
    command = [sys.executable, "-c", SCRIPT, str(root), str(out), str(last), str(Path(__file__).parents[1])]
    assert subprocess.run(command).returncode == -9
    detector = FakeEvaluated()
    evaluate(detector, [open_dataset("folder", root)], out, Options(**OPTIONS, resume=True))
    for name in TABLES:
        assert (out / name).read_text() == (clean / name).read_text(), name
    one, other = (json.loads((folder / "results.json").read_text())["results"] for folder in (out, clean))
    assert one == other
    if last > 12:
        assert sum(detector.batches) < 18 + 2  # what was on record was not judged again (two are judged for the page)


def test_resume_notices_a_changed_mask_and_other_settings(root, tmp_path):
    copy = write_set(tmp_path / "set")
    out = tmp_path / "e"

    class Stopping(FakeEvaluated):
        def predict_arrays(self, images, /):
            if sum(self.batches) >= 12:
                raise KeyboardInterrupt
            return super().predict_arrays(images)

    with pytest.raises(KeyboardInterrupt):
        evaluate(Stopping(), [open_dataset("folder", copy)], out, Options(**OPTIONS))
    with pytest.raises(RunFolderError, match="other settings"):
        evaluate(
            FakeEvaluated(), [open_dataset("folder", copy)], out, Options(**OPTIONS, resume=True, resolution="tower")
        )
    mask(copy / "cup/ground_truth/bent/0_mask.png", (0, 30, 0, 30))
    resumed = evaluate(FakeEvaluated(), [open_dataset("folder", copy)], out, Options(**OPTIONS, resume=True))
    fresh = evaluate(FakeEvaluated(), [open_dataset("folder", copy)], tmp_path / "f", Options(**OPTIONS))
    assert resumed.results[0].mean["exact"] == fresh.results[0].mean["exact"]
