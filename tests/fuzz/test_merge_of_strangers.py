"""What fuzzing of `headclip merge` found: shards from other machines cannot write elsewhere, nor crash the merging."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuzzing.targets_merge import SHARDS, make
from headclip.errors import HeadclipError
from headclip.evaluation.merging import merge_evaluations
from headclip.evaluation.part_checks import MOST_DRAWS, part_fault
from headclip.evaluation.shards import read_rows, read_state
from headclip.inference.merging import merge_runs
from headclip.metrics.state import PixelState, empty_state, image_state, merge
from headclip.runs.checks import row_fault
from headclip.runs.run import read_journal
from headclip.runs.shards import keep_listing, read_listing

SOUND = {"path": "a.png", "status": "ok", "score": 0.5, "map": "maps/a.png.png"}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folders with `run` and `evaluation`, two shards each."""
    folder = tmp_path_factory.mktemp("shards")
    make(folder)
    return folder


@pytest.fixture
def copy(sound, tmp_path):
    def take(kind):
        return shutil.copytree(sound / kind, tmp_path / "a/b" / kind)

    return take


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "left/../../a.png", ".."])
def test_a_row_stays_in_its_run(name):
    assert row_fault(SOUND) == ""
    assert "leads out" in row_fault({**SOUND, "path": name})
    assert "leads out" in row_fault({**SOUND, "map": name})


def test_a_listed_name_that_leads_out_is_not_followed(copy, tmp_path):
    """Not even where its files were sent along."""
    run, name = copy("run"), "../../../stolen.png"
    place = run / f"shards/1-of-{SHARDS}"
    lines = [json.loads(line) for line in (place / "progress.jsonl").read_text().splitlines()]
    row = next(line for line in lines if line["row"]["status"] == "ok")
    for shard in range(1, SHARDS + 1):
        folder = run / f"shards/{shard}-of-{SHARDS}"
        with (folder / "progress.jsonl").open("a") as journal:
            journal.write(json.dumps({**row, "row": {**row["row"], "path": name}}) + "\n")
        assert name not in read_journal(folder / "progress.jsonl")[0]
    for kind, end in (("maps", "png"), ("previews", "jpg")):
        source = next((place / kind).rglob(f"*.{end}"))
        shutil.copyfile(source, run / f"stolen.png.{end}")  # where 1-of-2/maps/../../../ leads
    names = [*(line["row"]["path"] for line in lines), name]
    digest = keep_listing(run / "shards", names)
    for shard in range(1, SHARDS + 1):
        file = run / f"shards/{shard}-of-{SHARDS}/run.json"
        facts = json.loads(file.read_text())
        facts["shard"]["listing"] = digest
        file.write_text(json.dumps(facts))
    with pytest.raises(HeadclipError, match="has no row for"):
        merge_runs([run])
    assert not list(tmp_path.rglob("a/b/stolen*"))
    assert not list(tmp_path.rglob("a/stolen*"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda facts: facts.pop("status"), "status is missing"),
        (lambda facts: facts.update(shard=3), "shard is missing"),
        (lambda facts: facts.update(shard={"index": "x", "count": 2}), "its shard is none"),
        (lambda facts: facts.update(seconds="long"), "seconds is missing"),
        (lambda facts: facts.update(command="\ud800"), "text or numbers that are none"),
        (lambda facts: facts["datasets"]["set"].update(listing=7), "list of images"),
        (lambda facts: facts["datasets"]["set"].update(runs=["../../elsewhere"]), "leads out"),
        (lambda facts: facts["datasets"]["set"].update(labels=["other"]), "do not belong together"),
        (lambda facts: facts["options"].update(bootstrap=10**9), "bootstrap draws are more than"),
        (lambda facts: facts["options"].update(seed="a"), "the option seed"),
    ],
)
def test_a_damaged_evaluation_is_refused(copy, tmp_path, change, match):
    evaluation = copy("evaluation")
    file = evaluation / f"shards/1-of-{SHARDS}/results.json"
    facts = json.loads(file.read_text())
    change(facts)
    file.write_text(json.dumps(facts))
    with pytest.raises(HeadclipError, match=match):
        merge_evaluations([evaluation])
    assert not list(tmp_path.rglob("elsewhere"))


def test_nesting_without_end_in_an_evaluation(copy):
    evaluation = copy("evaluation")
    (evaluation / f"shards/1-of-{SHARDS}/results.json").write_text("[" * 100_000)
    with pytest.raises(HeadclipError, match="holds no shard"):
        merge_evaluations([evaluation])


def test_a_sound_evaluation_has_no_fault(sound):
    facts = json.loads((sound / f"evaluation/shards/1-of-{SHARDS}/results.json").read_text())
    assert part_fault(facts) == ""
    assert facts["options"]["bootstrap"] <= MOST_DRAWS


def test_damaged_rows_are_refused(sound, tmp_path):
    rows = next((sound / "evaluation/shards").rglob("rows.parquet"))
    assert read_rows(rows)
    for content in (b"", rows.read_bytes()[:-9], b"\xff" * 300):
        (tmp_path / "rows.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"rows\.parquet"):
            read_rows(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bins", [5, 5]), ("bins", [9, 2]), ("bins", [0, 2**60]), ("positives", [-1, 0]), ("negatives", [1]),
        ("weights", ["a", "b"]), ("weights", [0.5, 1.0]), ("scalars", [0, 1, 99, 2048]), ("scalars", [0, 1, 0, 1]),
        ("scalars", [0, 1, 0, 2**40]), ("limits", [np.nan, 1.0]), ("limits", [1.0, 0.0]), ("limits", [0.0]),
    ],
)  # fmt: skip
def test_a_state_that_is_none_is_refused(tmp_path, name, value):
    arrays = image_state(np.array([[0.25, 0.75]], np.float32), None, capacity=2048).to_arrays()
    assert merge(PixelState.from_arrays(arrays)).images == 1
    assert PixelState.from_arrays(empty_state().to_arrays()).images == 0
    np.savez(tmp_path / "state.npz", **{**arrays, name: np.array(value)})
    with pytest.raises(ValueError, match="state"):
        read_state(tmp_path / "state.npz")


def test_shards_that_do_not_say_how_they_were_called_are_merged(copy):
    run = copy("run")
    for file in run.glob("shards/*/run.json"):
        facts = json.loads(file.read_text())
        del facts["arguments"]
        file.write_text(json.dumps(facts))
    assert merge_runs([run]).rows


def test_a_list_of_images_that_is_no_text_is_refused(tmp_path):
    names = pa.array([b"\xff.png"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"path": names}), tmp_path / f"listing-{'0' * 16}.parquet")
    with pytest.raises(HeadclipError, match="cannot read the list of images"):
        read_listing(tmp_path, "0" * 16)
