"""Tiles: they cover an image, blend without seams, and keep the context of the whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headclip.errors import InputError
from headclip.inference.detector import Detector
from headclip.inference.tiles import TiledDetector, tile_axis
from headclip.methods.headclip import HeadClip
from headclip.prediction import Prediction
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


class Brightness:
    """A detector whose map is the image's brightness, and whose global score is the mean of it."""

    batch_size, image_size, method = 3, 64, HeadClip

    def __init__(self, **config):
        self.config = {"alpha": 0.25, "top_share": 0.01, "normalise_map": "none"} | config
        self.seen = []

    def input_size(self, height, width):
        return 64, 64

    def describe(self):
        return {"method": "headclip", "config": self.config}

    def predict_arrays(self, images, categories=None):
        self.seen.append([(image.shape[:2], None if categories is None else categories[0]) for image in images])
        maps = [image.mean(axis=2, dtype=np.float32) / 255 for image in images]
        return [Prediction(0.5, float(m.mean()), float(m.max()), m) for m in maps]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 700), st.integers(32, 200), st.floats(0, 0.75))
@settings(max_examples=80, deadline=None)
def test_tiles_cover_and_weights_sum_to_one(length, tile, overlap):
    axis = tile_axis(length, tile, overlap)
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert (weights > 0).all()
        total[start : start + axis.size] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == length
    step = np.diff(axis.starts)
    assert (step <= axis.size * (1 - overlap) + 1).all()
    assert len(axis.starts) == 1 or length > tile


def test_weights_fall_smoothly_to_the_edge_of_a_tile():
    axis = tile_axis(500, 100, 0.5)
    inner = axis.weights[len(axis.starts) // 2]
    assert inner[0] < 0.01
    assert np.abs(np.diff(inner)).max() < 0.05


def test_a_map_that_depends_on_the_pixel_alone_comes_out_as_it_is():
    image = picture(150, 333)
    found = TiledDetector(Brightness()).predict_arrays([image])[0]
    np.testing.assert_allclose(found.anomaly_map, image.mean(axis=2) / 255, atol=1e-5)


def test_the_score_joins_whole_image_and_highest_values():
    image = np.full((200, 300, 3), 51, np.uint8)
    image[100:110, 50:60] = 255  # 100 px; one per cent of a tile is 40 px
    inner = Brightness()
    found = TiledDetector(inner).predict_arrays([image])[0]
    assert found.local_score == pytest.approx(1, abs=1e-5)  # and would be 0.33 of one per cent of the whole map
    assert found.global_score == pytest.approx(image.mean() / 255, abs=0.01)
    assert found.score == pytest.approx(0.75 * found.global_score + 0.25 * found.local_score)
    assert inner.seen[0] == [((64, 64), None)]  # the context comes first, at the tower's size


def test_small_images_go_the_usual_way_and_order_is_kept():
    inner = Brightness()
    images = [picture(40, 64), picture(65, 20), picture(64, 64)]
    found = TiledDetector(inner).predict_arrays(images, ["a", "b", "c"])
    assert [p.anomaly_map.shape for p in found] == [(40, 64), (65, 20), (64, 64)]
    assert inner.seen[0] == [((40, 64), "a"), ((64, 64), "a")]
    assert {name for batch in inner.seen[1:] for _, name in batch} == {"b"}
    assert found[0].score == 0.5
    assert found[1].score != 0.5


def test_batches_are_no_larger_than_the_detectors():
    inner = Brightness()
    TiledDetector(inner, overlap=0.5).predict_arrays([picture(200, 200)])
    assert max(map(len, inner.seen)) == 3
    assert sum(map(len, inner.seen)) == 1 + 6 * 6


def test_memory_is_bounded():
    image = np.zeros((1500, 2000, 3), np.uint8)
    tracemalloc.start()
    try:
        TiledDetector(Brightness()).predict_arrays([image])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * image.shape[0] * image.shape[1] * 4  # a few maps; all tiles at once would be as much again


def test_a_real_detector():
    detector = Detector(make_backbone(make_config()), device="cpu", image_size=56)
    image = picture(100, 150, 4)
    tiled = TiledDetector(detector, overlap=0.3)
    found = tiled.predict([image, image[:50, :50]])
    assert found[0].anomaly_map.shape == (100, 150)
    assert 0 <= found[0].anomaly_map.min() <= found[0].anomaly_map.max() <= 1
    whole = detector.predict_arrays([image])[0]
    assert found[0].global_score == pytest.approx(whole.global_score, abs=1e-5)
    assert np.array_equal(found[1].anomaly_map, detector.predict([image[:50, :50]])[0].anomaly_map)
    assert tiled.describe()["tiles"] == {"size": 56, "overlap": 0.3}
    assert tiled.batch_size == detector.batch_size


@pytest.mark.parametrize(
    ("options", "message"),
    [({"overlap": 0.9}, "choose 0 to 0.75"), ({"overlap": float("nan")}, "choose 0"), ({"tile": 5}, "choose 32")],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        TiledDetector(Brightness(), **options)


def test_methods_with_other_scores_are_refused():
    with pytest.raises(InputError, match="winclip joins its image score in a way of its own"):
        TiledDetector(Detector(make_backbone(make_config()), device="cpu", method="winclip"))
    with pytest.raises(InputError, match="normalise_map=image"):
        TiledDetector(Brightness(normalise_map="image"))
