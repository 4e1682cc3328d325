"""A region of interest: what is judged is the same as the part alone, and maps keep the image's size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from commands import run
from headclip.data.decode import MIN_SIDE
from headclip.data.hashing import pixel_hash
from headclip.errors import ImageError, InputError
from headclip.evaluation.evaluate import evaluate
from headclip.export import export_model
from headclip.inference.detector import Detector
from headclip.inference.leaving_out import calibrate_on_references
from headclip.inference.roi import Roi
from headclip.inference.tiles import TiledDetector
from headclip.judgement import Calibration
from headclip.judgement.verdicts import Criteria
from headclip.runs.run import Run
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")
ROI = "20,10,50%,40"  # of 120 x 90: columns 20 to 80, rows 10 to 50
PART = (slice(10, 50), slice(20, 80))


def build(**options):
    return Detector(make_backbone(make_config()), device="cpu", image_size=56, **options)


def pictures(count, size=(90, 120), seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("20,10,50%,40", (10, 50, 20, 80)),
        ("0,0,100%,100%", (0, 90, 0, 120)),
        (" 10% , 5 , 25.5%, 50% ", (5, 50, 12, 43)),
        ("112,82,8,8", (82, 90, 112, 120)),
    ],
)
def test_numbers_are_pixels_or_shares(text, box):
    rows, columns = Roi.parse(text).box(90, 120)
    assert (rows.start, rows.stop, columns.start, columns.stop) == box


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3", "give LEFT,TOP,WIDTH,HEIGHT"),
        ("1,2,3,4,5", "give LEFT,TOP,WIDTH,HEIGHT"),
        ("a,2,3,4", "give LEFT,TOP,WIDTH,HEIGHT"),
        ("nan,2,30,40", "give LEFT,TOP,WIDTH,HEIGHT"),
        ("1.5,2,30,40", "pixels are whole numbers"),
        ("-1,2,30,40", "begins at 0 or later"),
        ("1,2,0,40", "has a width and a height"),
        ("60%,0,50%,100%", "beyond 100 %"),
    ],
)
def test_what_is_no_region_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        Roi.parse(text)


percent = st.integers(0, 100)


@given(percent, percent, percent, percent, st.integers(8, 3000), st.integers(8, 3000))
def test_shares_lie_within_every_image(left, top, width, height, rows, columns):
    if not (width and height and left + width <= 100 and top + height <= 100):
        return
    roi = Roi.parse(f"{left}%,{top}%,{width}%,{height}%")
    assert Roi.parse(str(roi)) == roi
    try:
        box = roi.box(rows, columns)
    except ImageError as error:
        assert "less than" in str(error)  # noqa: PT017 - either outcome may come
        return
    assert 0 <= box[0].start <= box[0].stop - MIN_SIDE
    assert box[0].stop <= rows
    assert box[1].stop <= columns


def test_the_part_is_judged_as_if_it_were_the_image():
    images = pictures(3)
    whole, part = build(roi=ROI).predict_arrays(images), build().predict_arrays([image[PART] for image in images])
    for one, other in zip(whole, part, strict=True):
        assert (one.score, one.local_score) == (other.score, other.local_score)
        assert one.anomaly_map.shape == (90, 120)
        assert np.array_equal(one.anomaly_map[PART], other.anomaly_map)
        assert one.anomaly_map.sum() == pytest.approx(other.anomaly_map.sum())  # 0 outside


def test_regions_have_their_place_in_the_image():
    detector = build(roi=ROI, calibration=Criteria(threshold=0.0, low=0.0, high=0.0, pixel=0.0))
    (region,) = detector.predict(pictures(1))[0].regions
    assert region.box == (20, 10, 60, 40)


def test_an_image_that_does_not_hold_it_is_named():
    with pytest.raises(ImageError, match=r"region of interest 20,10,50%,40 reaches beyond its 60 x 30 pixels"):
        build(roi=ROI).predict(pictures(1, (30, 60)))
    with pytest.raises(ImageError, match="less than 8 pixels"):
        build(roi="0,0,10%,10%").predict(pictures(1, (70, 200)))


def test_a_stream_goes_on_after_one():
    seen = []
    given = [*pictures(2), *pictures(1, (30, 60)), *pictures(2)]
    found = list(build(roi=ROI, batch_size=8).stream(given, lambda image, error: seen.append(str(error))))
    assert len(found) == 4
    assert seen == ["the region of interest 20,10,50%,40 reaches beyond its 60 x 30 pixels"]


def test_tiles_are_of_the_part():
    images = pictures(2)
    whole = TiledDetector(build(roi=ROI), tile=32).predict_arrays(images)
    part = TiledDetector(build(), tile=32).predict_arrays([image[PART] for image in images])
    for one, other in zip(whole, part, strict=True):
        assert one.score == other.score
        assert np.array_equal(one.anomaly_map[PART], other.anomaly_map)


def test_references_are_compared_by_the_part():
    references, image = pictures(3, seed=1), pictures(1, seed=2)
    whole = build(roi=ROI, references=references)
    part = build(references=[reference[PART] for reference in references])
    assert whole.predict(image)[0].score == part.predict([image[0][PART]])[0].score
    assert whole.references == [pixel_hash(reference) for reference in references]  # known by the images themselves
    changed = [reference.copy() for reference in references]
    for one in changed:
        one[60:] = 0  # outside
    assert build(roi=ROI, references=changed).predict(image)[0].score == whole.predict(image)[0].score


def test_references_are_judged_beside_each_other(tmp_path):
    paths = []
    for number, pixels in enumerate(pictures(6, seed=3)):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    found = calibrate_on_references(build(roi=ROI, references=paths), paths, 0.2)
    assert found.data["left_out"] == 6
    assert found.model["roi"] == ROI


def test_what_sees_whole_images_alone_refuses_it(tmp_path):
    detector = build(roi=ROI)
    with pytest.raises(InputError, match="give the region to ExportedDetector"):
        export_model(detector, "torch", tmp_path / "m.pt2")
    with pytest.raises(InputError, match="scored as whole images"):
        evaluate(detector, [], tmp_path / "ev")


def test_a_calibration_holds_for_its_region(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, pixels in enumerate(pictures(12, seed=4)):
        Image.fromarray(pixels).save(tmp_path / f"in/{number}.png")
    Image.fromarray(pictures(1, (20, 20))[0]).save(tmp_path / "in/small.png")
    calibration, out = tmp_path / "c.json", tmp_path / "run"
    command = ("--image-size", "64", "--roi", ROI)
    assert run("calibrate", str(tmp_path / "in"), "--tightest", "--out", str(calibration), *command) == 0
    assert Calibration.load(calibration).model["roi"] == ROI
    judged = ("predict", str(tmp_path / "in"), "--out", str(out), "--calibration", str(calibration))
    assert run(*judged, "--image-size", "64") == 2
    assert "made for another model (roi 20,10,50%,40 there, none here)" in capsys.readouterr().err
    assert run(*judged, *command) == 0
    found = Run.open(out)
    assert [row.path for row in found.failed] == ["small.png"]
    assert found.failed[0].reason == "the region of interest 20,10,50%,40 reaches beyond its 20 x 20 pixels"
    assert found.settings["roi"] == ROI
    maps = [found.load_map(row) for row in found.ok]
    assert all(values[:10].max() == values[50:].max() == 0 < values[PART].min() for values in maps)
