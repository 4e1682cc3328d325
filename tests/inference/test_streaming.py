"""Predictions one after another: what is read when, folders and globs, and images that cannot be read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from headclip.errors import ImageError, InputError
from headclip.inference.detector import Detector
from headclip.inference.tiles import TiledDetector
from headclip.judgement.verdicts import Criteria
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


def build(**options):
    return Detector(make_backbone(make_config()), device="cpu", image_size=56, **options)


@pytest.fixture(scope="module")
def detector():
    return build(batch_size=3)


def picture(number, size=(50, 60)):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    """Seven images of two sizes in natural order, one of them broken, one in a subfolder."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number in (1, 2, 3, 10, 11):
        Image.fromarray(picture(number, (50, 60) if number % 2 else (40, 70))).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"")
    Image.fromarray(picture(12)).save(folder / "more" / "12.png")
    return folder


def test_a_folder_gives_what_predict_gives(detector, photos):
    with pytest.warns(UserWarning, match=r"passed over: .*4\.png: the file is empty"):
        found = list(detector.stream(photos))
    names = ["1.png", "2.png", "3.png", "10.png", "11.png", "more/12.png"]
    assert [one.path for one in found] == [str(photos / name) for name in names]
    for one, other in zip(found, detector.predict([photos / name for name in names]), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        np.testing.assert_allclose(one.anomaly_map, other.anomaly_map, atol=1e-4)


def test_globs_folders_and_images_in_one_list(detector, photos):
    given = [picture(1), str(photos / "1*.png"), Image.fromarray(picture(2)), photos / "more"]
    paths = [one.path for one in detector.stream(given)]
    names = [None if path is None else path.removeprefix(f"{photos}/") for path in paths]
    assert names == [None, "1.png", "10.png", "11.png", None, "more/12.png"]


def test_a_name_with_brackets_is_a_file(detector, photos):
    path = photos / "a[1].png"
    (photos / "1.png").rename(path)
    assert [one.path for one in detector.stream([path])] == [str(path)]


def test_what_cannot_be_read_is_handed_over(detector, photos):
    seen = []
    given = [photos / "1.png", photos / "4.png", "missing.png", np.zeros((4, 4, 7), np.uint8), photos / "2.png"]
    found = list(detector.stream(given, lambda image, error: seen.append((image, error))))
    assert [one.path for one in found] == [str(photos / "1.png"), str(photos / "2.png")]
    assert [image if isinstance(image, str) else None for image, _ in seen] == [None, "missing.png", None]
    assert all(isinstance(error, ImageError) for _, error in seen)
    assert "the file does not exist" in str(seen[1][1])


def test_whoever_raises_ends_it(detector, photos):
    def end(image, error):
        raise error

    with pytest.raises(ImageError, match=r"4\.png"):
        list(detector.stream(photos, end))


def test_a_wrong_path_is_an_error_before_the_loop(detector, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        detector.stream(tmp_path / "photso")
    with pytest.raises(InputError, match="nothing matches"):
        detector.stream(str(tmp_path / "*.png"))
    with pytest.raises(InputError, match="looks like a batch"):
        detector.stream(np.zeros((2, 40, 40, 3), np.uint8))
    with pytest.raises(ImageError, match="this is a folder; give the images in it, or the folder to the detector's st"):
        detector.predict(tmp_path)


@pytest.mark.parametrize(("batch_size", "most"), [(1, 2), (3, 3 + 2)])
def test_no_more_is_taken_than_needed(batch_size, most):
    """Frames of a camera: with a batch size of 1 each is answered before the next is asked for."""
    detector, taken = build(batch_size=batch_size), []

    def camera():
        for number in range(40):
            taken.append(number)
            yield picture(number)

    answers = detector.stream(camera())
    assert taken == []
    for _ in range(2):
        next(answers)
    assert len(taken) == most
    answers.close()
    assert len(taken) == most


def test_large_images_make_small_batches(monkeypatch):
    detector, sizes = build(batch_size=8), []
    whole = detector.predict_arrays
    monkeypatch.setattr(detector, "predict_arrays", lambda images: sizes.append(len(images)) or whole(images))
    monkeypatch.setattr("headclip.inference.streaming.BATCH_PIXELS", 2 * 50 * 60)
    assert len(list(detector.stream(picture(number) for number in range(5)))) == 5
    assert sizes == [2, 2, 1]


def test_verdicts_come_along(photos):
    detector = build(calibration=Criteria(threshold=0.0, low=0.0, high=1.0, pixel=0.0))
    found = list(detector.stream([photos / "1.png"]))
    assert found[0].alarm is True
    assert found[0].regions


def test_tiles_stream_too(detector, photos):
    tiled = TiledDetector(detector, tile=32)
    found = list(tiled.stream([photos / "1.png", photos / "2.png"]))
    assert [one.anomaly_map.shape for one in found] == [(50, 60), (40, 70)]
    assert found[1].score == pytest.approx(tiled.predict(photos / "2.png")[0].score, abs=1e-6)
