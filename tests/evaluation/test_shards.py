"""An evaluation in shards, merged, has the tables of one process to the last digit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.evaluate_files import FakeEvaluated, mask, picture, write_set
from headclip.data.datasets import open_dataset
from headclip.errors import InputError
from headclip.evaluation.evaluate import Options, evaluate, evaluate_together
from headclip.evaluation.merging import is_evaluation_part, merge_evaluations
from headclip.evaluation.shards import read_state
from headclip.metrics import compute
from headclip.runs.files import RunFolderError
from headclip.runs.run import Run
from headclip.runs.shards import Shard

OPTIONS = Options(bootstrap=5, figures=False, worst=2)
TABLES = ("tables.csv", "scores.csv", "tables.md", "tables.tex", "worst.html")
# Evaluates shard 1/2 of argv[1] into argv[2]; dies by SIGKILL before it puts file number argv[3] in place.
SCRIPT = """
import sys, pathlib
sys.path[:0] = [sys.argv[4]]
from dying import die_before_file
from evaluation.evaluate_files import FakeEvaluated
from headclip.data.datasets import open_dataset
from headclip.evaluation.evaluate import Options, evaluate
from headclip.runs.shards import Shard

die_before_file(int(sys.argv[3]))
options = Options(bootstrap=5, figures=False, worst=2, shard=Shard(1, 2))
evaluate(FakeEvaluated(batch_size=2), [open_dataset("folder", sys.argv[1])], pathlib.Path(sys.argv[2]), options)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two categories; an image and a mask are broken."""
    root = write_set(tmp_path_factory.mktemp("set"))
    (root / "cup/test/good/0.png").write_bytes(b"no image")
    (root / "nut/ground_truth/bent/1_mask.png").write_bytes(b"no mask")
    return root


@pytest.fixture(scope="module")
def clean(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean") / "e"
    evaluate(FakeEvaluated(), [open_dataset("folder", root)], out, OPTIONS)
    return out


def judge(root: Path, out: Path, index: int, count: int, options: Options = OPTIONS) -> None:
    chosen = replace(options, shard=Shard(index, count))
    evaluate(FakeEvaluated(), [open_dataset("folder", root)], out, chosen)


def check_same(out: Path, clean: Path) -> None:
    for name in TABLES:
        assert (out / name).read_text() == (clean / name).read_text(), name
    one, other = (json.loads((folder / "results.json").read_text()) for folder in (out, clean))
    assert one["results"] == other["results"]
    assert one["averages"] == other["averages"]
    assert one["options"] == other["options"]


@pytest.mark.parametrize("count", [1, 3])
def test_merged_shards_have_the_tables_of_one_process(root, clean, tmp_path, count):
    out = tmp_path / "e"
    for index in range(1, count + 1):
        judge(root, out, index, count)
    merged = merge_evaluations([out])
    check_same(out, clean)
    assert merged.results[0].intervals["pixel_auroc"].replicates <= 5
    key = merged.results[0].name
    one, other = Run.open(out / "runs" / key), Run.open(clean / "runs" / key)
    assert [replace(row, seconds=None) for row in one.rows] == [replace(row, seconds=None) for row in other.rows]
    merge_evaluations([out])  # done twice, nothing changes
    check_same(out, clean)
    with pytest.raises(InputError, match="made without shards"):
        judge(root, clean, 1, 2)


def test_a_shard_without_images_is_a_shard(root, tmp_path):
    names = {path.relative_to(root).as_posix() for path in root.rglob("test/*/*.png")}
    index = next(index for index in range(1, 201) if not any(Shard(index, 200).holds(name) for name in names))
    judge(root, tmp_path / "e", index, 200)
    place = tmp_path / f"e/shards/{index}-of-200"
    assert json.loads((place / "results.json").read_text())["status"] == "finished"
    with pytest.raises(RunFolderError, match="199 of 200 shards are missing"):
        merge_evaluations([tmp_path / "e"])


def test_the_states_are_those_of_the_shard(root, tmp_path):
    judge(root, tmp_path / "e", 1, 1)
    place = tmp_path / "e/shards/1-of-1"
    assert is_evaluation_part(place)
    states = [read_state(file) for file in (place / "parts").rglob("*.npz")]
    assert sorted(state.images for state in states) == [8, 8]  # a broken image, a broken mask
    whole = evaluate(FakeEvaluated(), [open_dataset("folder", root)], tmp_path / "one", OPTIONS).results[0]
    found = sorted(compute(state)["pixel_auroc"] for state in states)
    assert found == sorted(category.figures["exact"]["pixel_auroc"] for category in whole.categories)
    assert sum(category.state.positives.sum() for category in whole.categories) == sum(
        s.positives.sum() for s in states
    )


def test_several_methods_and_datasets(root, tmp_path):
    other = write_set(tmp_path / "other", ("lid",), seed=7)
    datasets = [open_dataset("folder", root), open_dataset("folder", other)]
    options = replace(OPTIONS, worst=0, protocol="ader", resolution="image")

    class Darker(FakeEvaluated):
        def _predict(self, image):
            return super()._predict((image * 0.8).astype(np.uint8))

    for place, shards in ((tmp_path / "one", [None]), (tmp_path / "e", [Shard(1, 2), Shard(2, 2)])):
        for shard in shards:
            detectors = {"first one": Darker(), "second": FakeEvaluated()}
            chosen = replace(options, shard=shard)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(
                    "headclip.evaluation.judging.group_by_pass",
                    lambda found: [_Group({n: d}) for n, d in found.items()],
                )
                evaluate_together(detectors, datasets, place, chosen)
    merge_evaluations([tmp_path / "e"])
    for name in ("tables.csv", "scores.csv", "tables.md", "comparisons.csv"):
        assert (tmp_path / "e" / name).read_text() == (tmp_path / "one" / name).read_text(), name


class _Group:
    """A pass of its own for each detector."""

    def __init__(self, detectors):
        from headclip.inference.shared import PassGroup

        self._group = PassGroup(detectors)
        self.detectors, self.first, self.batch_size = detectors, self._group.first, self._group.batch_size
        self.pieces = self._group.pieces


# The order: results.json, run.json, counts, run tables and page, run.json, states, rows, maps, listing, results.json
@pytest.mark.parametrize("last", [7, 15])
def test_a_killed_shard_goes_on(root, clean, tmp_path, last):
    out = tmp_path / "e"
    judge(root, out, 2, 2)
    command = [sys.executable, "-c", SCRIPT, str(root), str(out), str(last), str(Path(__file__).parents[1])]
    assert subprocess.run(command).returncode == -9
    with pytest.raises(RunFolderError, match=r"1/2 .* not finished"):
        merge_evaluations([out])
    judge(root, out, 1, 2, replace(OPTIONS, resume=True))
    merge_evaluations([out])
    check_same(out, clean)


def test_without_the_counts_of_images_figures_are_the_same_and_pixel_intervals_missing(root, clean, tmp_path):
    out = tmp_path / "e"
    for index in (1, 2):
        judge(root, out, index, 2)
        shutil.rmtree(next((out / f"shards/{index}-of-2/runs").iterdir()) / "counts")
    result = merge_evaluations([out]).results[0]
    known = json.loads((clean / "results.json").read_text())["results"][0]
    assert dict(result.mean["exact"]) == known["mean"]["exact"]
    assert {name: vars(value) for name, value in result.intervals.items()} == {
        name: value for name, value in known["intervals"].items() if name.startswith("image")
    }
    assert any("pixel figures have no intervals" in note for note in result.notes)


def test_what_does_not_fit_is_refused(root, tmp_path):
    out = tmp_path / "e"
    judge(root, out, 1, 2)
    with pytest.raises(RunFolderError, match="1 of 2 shards are missing: 2/2"):
        merge_evaluations([out])
    judge(root, out, 2, 2, replace(OPTIONS, seed=1))
    with pytest.raises(RunFolderError, match=r"different settings \(options.seed: 0 and 1\)"):
        merge_evaluations([out])
    with pytest.raises(InputError, match="already holds a finished shard of an evaluation; add --resume"):
        judge(root, out, 2, 2)
    judge(root, out, 2, 2, replace(OPTIONS, overwrite=True))
    rows = next((out / "shards/2-of-2/parts").rglob("rows.parquet"))
    kept = rows.read_bytes()
    rows.write_bytes(kept[:-20])
    with pytest.raises(RunFolderError, match=r"shard 2/2 .* is damaged"):
        merge_evaluations([out])
    rows.write_bytes(kept)
    merge_evaluations([out])


def test_a_changed_dataset_is_noticed(tmp_path):
    root, out = write_set(tmp_path / "set", ("cup",)), tmp_path / "e"
    for index in (1, 2):
        judge(root, out, index, 2)
    picture(root / "cup/test/good/late.png", 77)
    with pytest.raises(InputError, match="not those that the shards judged"):
        merge_evaluations([out])
    mask(root / "cup/ground_truth/bent/0_mask.png", (0, 30, 0, 30))
    for index in (1, 2):
        judge(root, out, index, 2, replace(OPTIONS, resume=True))
    merge_evaluations([out])
    evaluate(FakeEvaluated(), [open_dataset("folder", root)], tmp_path / "clean", OPTIONS)
    check_same(out, tmp_path / "clean")
    (tmp_path / "elsewhere").mkdir()
    moved = root.rename(tmp_path / "elsewhere/set")
    again = merge_evaluations([out], tmp_path / "there", data=[f"folder={moved}"])
    assert again.results[0].mean["exact"]


def test_labels_and_masks_that_changed_between_shards_and_merging_are_named(tmp_path):
    root, out = write_set(tmp_path / "set"), tmp_path / "e"
    judge(root, out, 1, 2)
    mask(root / "cup/ground_truth/bent/0_mask.png", (0, 30, 0, 30))
    judge(root, out, 2, 2)
    mask(root / "cup/ground_truth/bent/0_mask.png", (0, 20, 0, 30))
    with pytest.raises(InputError, match=r"1 image\(s\) of set have another label or mask.*cup/test/bent/0.png"):
        merge_evaluations([out])
    for index in (1, 2):
        judge(root, out, index, 2, replace(OPTIONS, resume=True))
    merge_evaluations([out])
    evaluate(FakeEvaluated(), [open_dataset("folder", root)], tmp_path / "clean", OPTIONS)
    check_same(out, tmp_path / "clean")


def test_shards_of_a_list_are_merged_without_being_told_where_it_is(tmp_path):
    root, out = write_set(tmp_path / "set"), tmp_path / "e"
    files = sorted(path.relative_to(root).as_posix() for path in root.glob("*/test/*/*.png"))
    masks = [
        "" if "good" in name else name.replace("test", "ground_truth").replace(".png", "_mask.png") for name in files
    ]
    lines = [f"{name},{int(bool(mask))},{mask}" for name, mask in zip(files, masks, strict=True)]
    (root / "list.csv").write_text("\n".join(["path,label,mask", *lines]))
    for index in (1, 2):
        chosen = replace(OPTIONS, shard=Shard(index, 2))
        evaluate(FakeEvaluated(), [open_dataset("manifest", root / "list.csv")], out, chosen)
    evaluate(FakeEvaluated(), [open_dataset("manifest", root / "list.csv")], tmp_path / "clean", OPTIONS)
    merge_evaluations([out])
    check_same(out, tmp_path / "clean")
