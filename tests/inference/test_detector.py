"""The detector on a tiny backbone: inputs, batching, sizes, precision, errors."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from headclip.errors import CheckpointError, ImageError, InputError
from headclip.inference.detector import Detector
from headclip.inference.sharing import shared_precision
from headclip.inference.tiles import TiledDetector
from headclip.methods.checkpoint import save_checkpoint
from headclip.methods.headclip import HeadClip, HeadClipConfig
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


def build(**options):
    return Detector(make_backbone(make_config()), device="cpu", image_size=56, **options)


@pytest.fixture(scope="module")
def detector():
    return build()


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(60, 80), (33, 50), (60, 80), (120, 40)]]


def test_maps_have_the_images_own_resolution(detector, images):
    for image, prediction in zip(images, detector.predict_arrays(images), strict=True):
        assert prediction.anomaly_map.shape == image.shape[:2]
        assert prediction.anomaly_map.dtype == np.float32
        assert 0 <= prediction.anomaly_map.min() <= prediction.anomaly_map.max() <= 1
        assert 0 <= prediction.score <= 1


def test_paths_pil_and_arrays_agree(detector, images, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    found = detector.predict([path, str(path), Image.fromarray(images[0]), images[0]])
    assert [prediction.path for prediction in found] == [str(path), str(path), None, None]
    for prediction in found[1:]:
        assert np.array_equal(prediction.anomaly_map, found[0].anomaly_map)
        assert prediction.score == found[0].score
    assert detector.predict(images[0])[0].score == pytest.approx(found[0].score, abs=1e-6)  # a batch of its own


def test_grey_and_alpha(detector):
    grey = np.full((40, 50), 77, np.uint8)
    alpha = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    one, other = detector.predict([grey, alpha])
    assert np.array_equal(one.anomaly_map, other.anomaly_map)


def test_order_and_batch_size_do_not_matter(images):
    one, four = build(batch_size=1).predict_arrays(images), build(batch_size=4).predict_arrays(images)
    back = build(batch_size=4).predict_arrays(images[::-1])[::-1]
    for a, b, c in zip(one, four, back, strict=True):
        assert a.score == pytest.approx(b.score, abs=1e-5)
        assert a.score == pytest.approx(c.score, abs=1e-5)
        np.testing.assert_allclose(a.anomaly_map, b.anomaly_map, atol=1e-5)


def test_aspect_is_kept_where_the_backbone_asks(images):
    from dataclasses import replace

    backbone = make_backbone(replace(make_config(), keep_aspect=True))
    detector = Detector(backbone, device="cpu", image_size=56)
    seen = []
    original = backbone.vision.forward
    backbone.vision.forward = lambda pixels, *rest: seen.append(tuple(pixels.shape[-2:])) or original(pixels, *rest)
    detector.predict_arrays([images[3]])  # 120 x 40
    assert seen == [(98, 28)]


def test_bf16_stays_near_fp32(images):
    full, half = build(precision="fp32"), build(precision="bf16")
    assert half.describe()["precision"] == "bf16"
    for a, b in zip(full.predict_arrays(images), half.predict_arrays(images), strict=True):
        assert np.abs(a.anomaly_map - b.anomaly_map).mean() < 0.05


def test_detectors_that_share_a_backbone_keep_their_precision(images):
    backbone = make_backbone(make_config())
    first = Detector(backbone, device="cpu", image_size=56, precision="fp32")
    before = first.predict_arrays(images)[0].score
    with pytest.raises(InputError, match="another detector uses this loaded backbone in fp32"):
        Detector(backbone, device="cpu", image_size=56, precision="bf16")
    assert Detector(backbone, device="cpu", image_size=56).precision == "fp32"
    assert first.predict_arrays(images)[0].score == before
    del first
    assert Detector(backbone, device="cpu", image_size=56, precision="bf16").precision == "bf16"


def test_a_shared_backbone_is_not_moved_to_another_device(monkeypatch):
    backbone = make_backbone(make_config())
    first = Detector(backbone, device="cpu")
    with pytest.raises(InputError, match="loaded backbone on cpu; load it again to use it on meta"):
        shared_precision(backbone, torch.device("meta"), "auto")
    assert shared_precision(make_backbone(make_config()), torch.device("meta"), "auto") == "auto"
    assert first.device.type == "cpu"


def test_only_decoded_images_are_taken_as_such(detector, images):
    for wrong in (images[0] / 255, images[0][..., 0], images[0].astype(np.uint16), np.zeros((9, 9, 4), np.uint8)):
        with pytest.raises(InputError, match=r"\(H, W, 3\) uint8, and was given"):
            detector.predict_arrays([images[0], wrong])
    with pytest.raises(InputError, match="1 categories were given for 2 images"):
        TiledDetector(detector).predict([images[0], images[1]], ["wood"])
    with pytest.raises(InputError, match="3 categories were given for 2 images"):
        TiledDetector(detector).predict([images[0], images[1]], ["wood"] * 3)


def test_what_is_no_image_is_refused_with_what_would_be_one(detector, images):
    with pytest.raises(InputError, match=r"tensor.permute\(1, 2, 0\).numpy\(\)"):
        detector.predict(torch.rand(3, 42, 42))
    with pytest.raises(InputError, match=r"give the images of it, list\(batch\)"):
        detector.predict(np.zeros((2, 42, 42, 3), np.uint8))
    with pytest.raises(ImageError, match=r"channels seem to come first: .transpose\(1, 2, 0\)"):
        detector.predict([np.zeros((3, 42, 42), np.uint8)])
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "PNG")
    assert detector.predict(buffer.getvalue())[0].score == detector.predict(images[0])[0].score


def test_a_description_is_that_of_the_checkpoint_that_was_loaded(tmp_path):
    backbone = make_backbone(make_config())
    save_checkpoint(tmp_path / "a.safetensors", HeadClip(backbone))
    detector = Detector(backbone, tmp_path / "a.safetensors", device="cpu")
    expected = detector.describe()
    (tmp_path / "a.safetensors").unlink()
    assert detector.describe() == expected


def test_a_checkpoint_brings_its_settings(tmp_path, images):
    backbone = make_backbone(make_config())
    method = HeadClip(backbone, HeadClipConfig(sigma=0.0, alpha=1.0))
    save_checkpoint(tmp_path / "a.safetensors", method)
    detector = Detector(backbone, tmp_path / "a.safetensors", device="cpu", image_size=56)
    prediction = detector.predict_arrays(images[:1])[0]
    assert prediction.score == prediction.local_score
    facts = detector.describe()
    assert facts["config"]["alpha"] == 1.0
    assert len(facts["checkpoint_hash"]) == 64


def test_without_a_checkpoint_it_warns():
    with pytest.warns(UserWarning, match="headclip train"):
        Detector(make_backbone(make_config()), device="cpu")


def test_errors(detector, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"a\.png"):
        detector.predict([tmp_path / "a.png"])
    with pytest.raises(InputError, match="image size"):
        Detector(make_backbone(make_config()), device="cpu", image_size=5000)
    with pytest.raises(InputError, match="choose 14"):
        Detector(make_backbone(make_config()), device="cpu", image_size=0)
    for device in ("toaster", "meta", "xpu"):
        with pytest.raises(InputError, match="unknown device"):
            Detector(make_backbone(make_config()), device=device)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Detector(make_backbone(make_config()), tmp_path / "none.safetensors", device="cpu")
    with pytest.raises(ImageError):
        detector.predict(np.zeros((4, 4, 7), np.uint8))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            Detector(make_backbone(make_config()), device="cuda")


def test_references_are_known_by_their_content(images, tmp_path):
    saved = [tmp_path / name for name in ("a.png", "b.png")]
    for path, image in zip(saved, images, strict=False):
        Image.fromarray(image).save(path)

    def described(*references):
        return build(method="winclip", references=references).describe()["references"]

    found = described(*saved)
    assert found == described(*images[:2])  # wherever they came from
    Image.fromarray(images[3]).save(saved[1])
    changed = described(*saved)
    assert (changed[0] == found[0], changed[1] == found[1]) == (True, False)
    assert build(method="winclip").describe()["references"] == []
    assert described(*saved[:1]) == build(method="winclip", references=saved[0]).describe()["references"]
    (tmp_path / "good").mkdir()
    with pytest.raises(ImageError, match="good: this is a folder; give the images in it"):
        build(method="winclip", references=str(tmp_path / "good"))
