"""The synthetic set as files."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from headclip.cli.app import app
from headclip.data.datasets import open_dataset
from headclip.data.synthetic import SyntheticDataset
from headclip.data.synthetic.photographs import Photographs
from headclip.data.write_synthetic import Written, write_synthetic
from headclip.errors import InputError

COUNT, SIZE, SEED = 6, 48, 5


def content(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "set"
    steps: list[int] = []
    assert write_synthetic(root, COUNT, SIZE, SEED, progress=steps.append) == Written(COUNT, COUNT)
    assert steps == list(range(1, COUNT + 1))
    return root


def test_files_are_the_rendered_samples(written):
    samples = SyntheticDataset(SEED, COUNT, SIZE)
    rows = [json.loads(line) for line in (written / "metadata.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(COUNT))
    for row in rows:
        sample = samples[row["index"]]
        np.testing.assert_array_equal(np.asarray(Image.open(written / row["image"])), sample.image.permute(1, 2, 0))
        assert row["caption"] == sample.caption
        assert row["label"] == sample.label
        if sample.label:
            np.testing.assert_array_equal(np.asarray(Image.open(written / row["mask"])) > 0, sample.mask)
        else:
            assert row["mask"] == ""
    with (written / "captions.csv").open() as handle:
        assert [row["caption"] for row in csv.DictReader(handle)] == [row["caption"] for row in rows]


def test_it_opens_as_a_dataset(written):
    data = open_dataset("folder", written)
    labels = [SyntheticDataset(SEED, COUNT, SIZE)[index].label for index in range(COUNT)]
    assert data.total() == (labels.count(0), labels.count(1))
    assert all(record.has_mask for record in data.records if record.label == 1)


def test_it_continues_after_a_kill(written, tmp_path):
    root = tmp_path / "set"
    write_synthetic(root, 4, SIZE, SEED)
    log = root / "metadata.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join(lines[:2]) + "\n" + lines[2][:20])  # killed while writing the third row
    (root / json.loads(lines[1])["image"]).unlink()
    assert write_synthetic(root, COUNT, SIZE, SEED) == Written(COUNT, COUNT - 1)
    assert content(root) == content(written)
    assert write_synthetic(root, COUNT, SIZE, SEED) == Written(COUNT, 0)


def test_other_settings_and_other_folders_are_refused(written, tmp_path):
    with pytest.raises(InputError, match=r"other settings: size 48 \(now 64\)"):
        write_synthetic(written, COUNT, 64, SEED)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        write_synthetic(tmp_path, COUNT, SIZE, SEED)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_defect_rate(tmp_path):
    write_synthetic(tmp_path / "set", 3, SIZE, SEED, 0.0)
    assert open_dataset("folder", tmp_path / "set").total() == (3, 0)


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "sound"
    folder.mkdir()
    pixels = np.full((96, 96, 3), (200, 40, 40), np.uint8)
    pixels[::2] -= 20
    Image.fromarray(pixels).save(folder / "red.png")
    return folder


def test_defects_can_be_drawn_on_photographs(photographs, tmp_path):
    shown = Photographs(photographs, 1.0)
    assert write_synthetic(tmp_path / "set", COUNT, SIZE, SEED, photographs=shown) == Written(COUNT, COUNT)
    samples = SyntheticDataset(SEED, COUNT, SIZE, photographs=shown)
    rows = [json.loads(line) for line in (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()]
    assert {row["family"] for row in rows} == {"photograph"}
    assert {row["label"] for row in rows} == {0, 1}
    for row in rows:
        drawn = np.asarray(Image.open(tmp_path / "set" / row["image"]))
        np.testing.assert_array_equal(drawn, samples[row["index"]].image.permute(1, 2, 0))
    assert write_synthetic(tmp_path / "set", COUNT, SIZE, SEED, photographs=shown) == Written(COUNT, 0)
    with pytest.raises(InputError, match="other settings: photographs"):
        write_synthetic(tmp_path / "set", COUNT, SIZE, SEED, photographs=Photographs(photographs, 0.5))


def test_a_family_beside_photographs_is_refused(photographs, tmp_path):
    with pytest.raises(InputError, match="one of the two"):
        write_synthetic(tmp_path / "set", 2, SIZE, SEED, family="leather", photographs=Photographs(photographs))
    assert not (tmp_path / "set").exists()


def test_a_set_among_its_own_photographs_is_refused(photographs):
    with pytest.raises(InputError, match="choose another folder"):
        write_synthetic(photographs / "set", 2, SIZE, SEED, photographs=Photographs(photographs))
    assert [path.name for path in photographs.iterdir()] == ["red.png"]


def test_the_command_draws_on_photographs(photographs, tmp_path):
    command = ["data", "synth", "--out", tmp_path / "set", "--count", "3", "--size", "48"]
    result = CliRunner().invoke(app, [str(word) for word in (*command, "--photographs", photographs)])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "set" / "metadata.jsonl").read_text().splitlines()]
    assert [row["family"] for row in rows] == ["photograph"] * 3


@pytest.mark.parametrize("text", [b"{", b"[" * 100_000, b"\xff{}", b"[]", b""])
def test_damaged_settings_are_named(written, tmp_path, text):
    shutil.copytree(written, tmp_path / "set")
    (tmp_path / "set/synthetic.json").write_bytes(text)
    with pytest.raises(InputError, match=r"synthetic\.json (is damaged|holds no settings).*choose another folder"):
        write_synthetic(tmp_path / "set", COUNT, SIZE, SEED)


def test_damaged_rows_are_made_again(written, tmp_path):
    shutil.copytree(written, tmp_path / "set")
    log = tmp_path / "set/metadata.jsonl"
    log.write_bytes(
        b"\n".join([b"\xff", b"[" * 100_000, b'{"index": 1}', b"[]", *log.read_bytes().splitlines()[3:], b""])
    )
    assert write_synthetic(tmp_path / "set", COUNT, SIZE, SEED) == Written(COUNT, 3)
    assert content(tmp_path / "set") == content(written)
