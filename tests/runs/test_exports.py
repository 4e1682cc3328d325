"""What other tools get: COCO, Label Studio, a table, masks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from headclip.data.datasets import open_dataset
from headclip.data.volumes.names import write_key
from headclip.errors import InputError
from headclip.inference.predict import predict_run
from headclip.judgement import Criteria, Promise
from headclip.judgement.calibrate import calibrate
from headclip.judgement.choosing import Judging
from headclip.judgement.scored import Scored
from headclip.runs.export_masks import mask_names
from headclip.runs.exports import CSV_COLUMNS, export_regions
from headclip.runs.files import RunFolderError
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Run
from inference.fake_detector import FakeDetector


@pytest.fixture
def run(tmp_path) -> Run:
    """Three pictures: a ring (a region with a hole) and a bar, one dark, one with its name twice."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    picture = Image.new("L", (60, 40), 20)
    draw = ImageDraw.Draw(picture)
    draw.ellipse((5, 5, 25, 25), fill=200)
    draw.ellipse((11, 11, 19, 19), fill=20)
    draw.rectangle((40, 3, 49, 30), fill=150)
    picture.save(folder / "sub/ring and bar.png")
    Image.new("L", (30, 30), 10).save(folder / "same.png")
    Image.new("L", (30, 30), 10).save(folder / "same.bmp")
    judging = Judging(threshold=0.1, pixel_threshold=0.4, pixel_mm=0.5)
    predict_run(FakeDetector(), [folder], tmp_path / "run", judging=judging)
    return Run.open(tmp_path / "run")


def mask_of(run: Run) -> np.ndarray:
    row = next(row for row in run.ok if row.regions)
    return run.load_map(row) > 0.4


def test_coco_is_what_our_own_reader_understands(run, tmp_path):
    assert export_regions(run, "coco", tmp_path / "in/regions.json") == 2
    content = json.loads((tmp_path / "in/regions.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [row.path for row in run.ok]
    ring, bar = sorted(content["annotations"], key=lambda item: -item["score"])
    assert isinstance(ring["segmentation"], dict)  # it has a hole
    assert bar["bbox"] == [40, 3, 10, 28]
    assert bar["segmentation"] == [[40, 3, 50, 3, 50, 31, 40, 31]]
    assert (ring["area"] + bar["area"]) == mask_of(run).sum()
    dataset = open_dataset("coco", tmp_path / "in/regions.json")
    record = next(record for record in dataset.records if record.label == 1)
    assert record.outline is not None
    drawn = record.outline.draw()
    np.testing.assert_array_equal(drawn, mask_of(run))


def test_run_lengths_are_exact(run, tmp_path):
    export_regions(run, "coco", tmp_path / "regions.json")
    ring = next(a for a in json.loads((tmp_path / "regions.json").read_text())["annotations"] if a["area"] > 280)
    counts = ring["segmentation"]["counts"]
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    mask = flat.reshape(ring["segmentation"]["size"], order="F").astype(bool)
    assert mask.sum() == ring["area"]
    wanted = mask_of(run)
    wanted[:, 30:] = False
    assert (mask == wanted).all()


def test_label_studio(run, tmp_path):
    assert export_regions(run, "labelstudio", tmp_path / "tasks.json", url_prefix="/files?d=") == 2
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert len(tasks) == 3
    task = next(task for task in tasks if "ring" in task["data"]["image"])
    assert task["data"]["image"] == "/files?d=sub/ring%20and%20bar.png"
    *regions, verdict = task["predictions"][0]["result"]
    assert verdict["value"]["choices"] == [run.ok[-1].verdict]
    bar = regions[1]["value"]["points"]
    wanted = sorted([x / 0.6, y / 0.4] for x in (40, 50) for y in (3, 31))
    assert np.array(sorted(bar)) == pytest.approx(np.array(wanted))
    assert all(0 <= value <= 100 for region in regions for point in region["value"]["points"] for value in point)
    assert regions[0]["original_width"] == 60


def test_table(run, tmp_path):
    assert export_regions(run, "csv", tmp_path / "regions.csv") == 2
    with (tmp_path / "regions.csv").open(encoding="utf-8") as handle:
        lines = list(csv.DictReader(handle))
    assert tuple(lines[0]) == CSV_COLUMNS
    bar = lines[1]
    assert (bar["left"], bar["top"], bar["width"], bar["height"], bar["area"]) == ("40", "3", "10", "28", "280")
    assert (bar["area_mm2"], bar["width_mm"], bar["height_mm"]) == ("70", "5", "14")


def test_masks(run, tmp_path):
    assert export_regions(run, "masks", tmp_path / "masks") == 3
    files = {path.relative_to(tmp_path / "masks").as_posix() for path in (tmp_path / "masks").rglob("*.png")}
    assert files == {"sub/ring and bar.png", "same.png.png", "same.bmp.png"}
    with Image.open(tmp_path / "masks/sub/ring and bar.png") as mask:
        assert (np.asarray(mask) == mask_of(run)).all()
    with Image.open(tmp_path / "masks/same.png.png") as mask:
        assert mask.size == (30, 30)
        assert not np.asarray(mask).any()


def test_only_some_verdicts(run, tmp_path):
    assert export_regions(run, "masks", tmp_path / "masks", verdicts={"defect"}) == 1
    assert export_regions(run, "csv", tmp_path / "none.csv", verdicts={"ok"}) == 0
    assert (tmp_path / "none.csv").read_text().count("\n") == 1


def test_without_regions(run, tmp_path):
    rejudge(run.folder, Criteria.manual(0.1))
    with pytest.raises(RunFolderError, match="no pixel threshold"):
        export_regions(Run.open(run.folder), "csv", tmp_path / "x.csv")


def test_a_missing_mask_is_named(run, tmp_path):
    row = next(row for row in run.ok if row.regions)
    Path(run.mask_path(row)).unlink()
    with pytest.raises(RunFolderError, match="rejudge"):
        export_regions(run, "masks", tmp_path / "masks")


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("overwrite", [False, True])
def test_masks_never_overwrite_the_images(run, tmp_path, overwrite):
    before = pictures_in(tmp_path / "in")
    (tmp_path / "link").symlink_to("in")
    for out in ("in", "in/sub/..", "link"):
        with pytest.raises(InputError, match="folder of the images"):
            export_regions(run, "masks", tmp_path / out, overwrite=overwrite)
    assert pictures_in(tmp_path / "in") == before


def test_masks_do_not_mix_with_those_of_the_run(run):
    for name in ("", "masks", "new/folder"):
        with pytest.raises(InputError, match="run folder"):
            export_regions(run, "masks", run.folder / name, overwrite=True)


def test_masks_reach_images_by_no_detour(tmp_path):
    """Below the folder of the images lies one with an image whose name a mask would have."""
    for name in ("a.png", "sub/a.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 30), 10).save(tmp_path / "in" / name)
    predict_run(
        FakeDetector(), [tmp_path / "in"], tmp_path / "run", judging=Judging(threshold=0.1, pixel_threshold=0.4)
    )
    before = (tmp_path / "in/sub/a.png").read_bytes()
    with pytest.raises(InputError, match=r"sub/a\.png is an image that the run judged"):
        export_regions(Run.open(tmp_path / "run"), "masks", tmp_path / "in/sub", overwrite=True)
    assert (tmp_path / "in/sub/a.png").read_bytes() == before
    assert not (tmp_path / "in/sub/sub").exists()


def test_masks_need_an_empty_folder_or_leave_to_overwrite(run, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/other.png").write_bytes(b"somebody's")
    with pytest.raises(InputError, match=r"not empty.*--overwrite"):
        export_regions(run, "masks", tmp_path / "masks")
    assert export_regions(run, "masks", tmp_path / "masks", overwrite=True) == 3
    assert (tmp_path / "masks/other.png").read_bytes() == b"somebody's"
    with pytest.raises(InputError, match="is a file"):
        export_regions(run, "masks", tmp_path / "masks/other.png")


@pytest.mark.parametrize("name", ["run/results.csv", "run/labels.csv", "run/masks/x.csv", "in/same.png"])
def test_a_table_takes_the_place_of_nothing_of_the_run(run, tmp_path, name):
    with pytest.raises(InputError, match=r"of the run itself|image that the run judged"):
        export_regions(run, "csv", tmp_path / name)


def test_files_that_the_user_names_may_be_links(run, tmp_path):
    calibration = calibrate(Scored(list("abc"), [0.1, 0.2, 0.3], None), {"method": "fake"}, Promise(0.5))
    (tmp_path / "kept").mkdir()
    for name, write in (
        ("x.csv", lambda path: export_regions(run, "csv", path)),
        ("c.json", calibration.save),
        ("key.csv", lambda path: write_key(path, [("a", tmp_path)], run.folder)),
    ):
        (tmp_path / name).symlink_to(f"kept/{name}")
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "kept" / name).stat().st_size


def test_every_mask_has_a_name_of_its_own(tmp_path):
    names = ["a.jpg", "a.bmp", "a.jpg.tif", "b.PNG", "B.jpg", "c.png", "d/1.png", "d.jpg", "e.png/1.jpg", "e.jpg"]
    found = mask_names(names)
    assert found == {
        "a.jpg": "a.jpg.png", "a.bmp": "a.bmp.png", "a.jpg.tif": "a.jpg.tif.png", "b.PNG": "b.PNG.png",
        "B.jpg": "B.jpg.png", "c.png": "c.png", "d/1.png": "d/1.png", "d.jpg": "d.png", "e.png/1.jpg": "e.png/1.png",
        "e.jpg": "e.jpg.png",
    }  # fmt: skip


def test_as_many_masks_are_written_as_are_told(tmp_path):
    (tmp_path / "in").mkdir()
    long = "x" * 251  # with .png as long as a name can be
    for name in ("a.jpg", "a.bmp", "a.jpg.tif", f"{long}.jpg", f"{long}.bmp", f"{'é' * 124}.png"):
        Image.new("L", (30, 30), 10).save(tmp_path / "in" / name)
    predict_run(
        FakeDetector(), [tmp_path / "in"], tmp_path / "run", judging=Judging(threshold=0.1, pixel_threshold=0.4)
    )
    assert export_regions(Run.open(tmp_path / "run"), "masks", tmp_path / "masks") == 6
    assert len(list((tmp_path / "masks").iterdir())) == 6
