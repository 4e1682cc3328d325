"""A killed evaluation, resumed, ends with the same tables as one that was not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.evaluate_files import FakeEvaluated, mask, write_set
from headclip.data.datasets import open_dataset
from headclip.data.records import ImageRecord
from headclip.evaluation.evaluate import Options, evaluate
from headclip.evaluation.judged import truth_fingerprint
from headclip.runs.files import RunFolderError

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


class Stopping(FakeEvaluated):
    """Interrupts itself after twelve images."""

    def predict_arrays(self, images, /):
        if sum(self.batches) >= 12:
            raise KeyboardInterrupt
        return super().predict_arrays(images)


def test_resume_notices_a_changed_mask_and_other_settings(root, tmp_path):
    copy = write_set(tmp_path / "set")
    out = tmp_path / "e"

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


def annotate(root: Path, *, bent: range, side: int) -> Path:
    """The set as COCO: of 18 images those in `bent` have a square of `side` pixels."""
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("*/test/*/*.png"))
    images = [{"id": i, "file_name": name, "width": 40, "height": 32} for i, name in enumerate(files)]
    square = [[5, 5, 5 + side, 5, 5 + side, 5 + side, 5, 5 + side]]
    annotations = [{"image_id": i, "category_id": 1, "segmentation": square} for i in bent]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "bent"}]}
    (root / "list.json").write_text(json.dumps(content))
    return root / "list.json"


@pytest.mark.parametrize("changed", [{"bent": range(9), "side": 16}, {"bent": range(3, 9), "side": 9}])
def test_resume_notices_changed_annotations(tmp_path, changed):
    """Outlines that changed, and images that are normal after all."""
    root = write_set(tmp_path / "set")

    def run(detector, name, **options):
        return evaluate(
            detector, [open_dataset("coco", root / "list.json")], tmp_path / name, Options(**OPTIONS, **options)
        )

    annotate(root, bent=range(9), side=9)
    with pytest.raises(KeyboardInterrupt):
        run(Stopping(batch_size=2), "e")
    annotate(root, **changed)
    detector = FakeEvaluated(batch_size=2)
    resumed, fresh = run(detector, "e", resume=True), run(FakeEvaluated(), "f")
    assert resumed.results[0].mean["exact"] == fresh.results[0].mean["exact"]
    judged = 18 if changed["side"] == 16 else 6 + 3
    assert sum(detector.batches) <= judged + 2  # two are judged for the page


def test_a_mask_in_a_folder_of_masks_is_noticed_too(tmp_path):
    masks = tmp_path / "masks"
    mask(masks / "0.png", (0, 3, 0, 3))
    mask(masks / "1.png", (9, 12, 0, 3))
    record = ImageRecord(tmp_path / "a.png", 1, masks, "cup")
    before = truth_fingerprint(record)
    assert truth_fingerprint(record) == json.loads(json.dumps(before)) == before
    mask(masks / "0.png", (0, 30, 0, 30))
    assert truth_fingerprint(record) != before
    assert truth_fingerprint(ImageRecord(tmp_path / "a.png", 1, masks / "gone", "cup")) == [1, None]


def test_a_mask_that_changed_without_a_trace_in_size_and_time_is_noticed(tmp_path):
    file = tmp_path / "mask.bmp"
    record, pixels = ImageRecord(tmp_path / "a.png", 1, file, "cup"), np.zeros((9, 9), np.uint8)
    pixels[2, 2] = 255
    Image.fromarray(pixels).save(file)
    before, times = truth_fingerprint(record), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    Image.fromarray(pixels.T[::-1]).save(file)
    os.utime(file, ns=times)
    assert truth_fingerprint(record) != before


def test_a_refused_resume_leaves_a_finished_evaluation_as_it_is(root, clean, tmp_path):
    out = shutil.copytree(clean, tmp_path / "e")
    before = (out / "results.json").read_bytes()
    with pytest.raises(RunFolderError, match="other settings"):
        evaluate(
            FakeEvaluated(), [open_dataset("folder", root)], out, Options(**OPTIONS, resume=True, resolution="tower")
        )
    assert (out / "results.json").read_bytes() == before


def test_what_a_resumed_evaluation_no_longer_has_goes(root, clean, tmp_path):
    out = shutil.copytree(clean, tmp_path / "e")
    (out / "figures").mkdir()
    for name in ("comparisons.csv", "figures/old.png"):
        (out / name).write_text("of before")
    assert (out / "worst.html").is_file()
    options = Options(bootstrap=0, figures=False, worst=0, resume=True)
    evaluate(FakeEvaluated(), [open_dataset("folder", root)], out, options)
    assert not {"figures", "comparisons.csv", "worst.html"} & {path.name for path in out.iterdir()}
