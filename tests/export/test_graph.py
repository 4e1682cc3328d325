"""The graph that is captured, run as it is, against the detector that it was made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headclip.clip.config import VisionConfig
from headclip.clip.preprocess import input_size
from headclip.errors import InputError
from headclip.export.graph import ExportGraph, exportable_methods
from headclip.inference.detector import Detector
from headclip.methods import list_methods
from tiny_clip import make_backbone, make_config, stirred

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")
SIZES = [(60, 80), (33, 50), (130, 40), (42, 42), (20, 300), (1, 1)]


def build(method="headclip", keep_aspect=False, image_size=56, least_side=0.0, **settings):
    backbone = make_backbone(replace(make_config(), keep_aspect=keep_aspect, least_side=least_side))
    made = Detector(backbone, device="cpu", precision="fp32", image_size=image_size, method=method, settings=settings)
    stirred(made.method)
    return made


def noise():
    """Two images of each size."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (2, *size, 3), dtype=np.uint8) for size in SIZES]


def alike(sizes, seed=0):
    """Two images of each size that show nearly the same: a light that falls from one side."""
    rng, found = np.random.default_rng(seed), []
    for height, width in sizes:
        light = np.linspace(40, 200, width)[None, None, :, None] + rng.normal(0, 4, (2, height, width, 3))
        found.append(light.clip(0, 255).astype(np.uint8))
    return found


@torch.no_grad()
def differences(detector, batches=None):
    """Largest difference of maps and of the three scores, over sizes and batches of two."""
    graph = ExportGraph(detector).eval()
    largest = 0.0
    for images in noise() if batches is None else batches:
        size = images.shape[1:3]
        maps, *scores = graph(torch.from_numpy(images))
        assert maps.shape == (2, *size)
        for index, one in enumerate(detector.predict_arrays(list(images))):
            largest = max(largest, float(np.abs(maps[index].numpy() - one.anomaly_map).max()))
            for value, expected in zip(scores, (one.score, one.global_score, one.local_score), strict=True):
                largest = max(largest, abs(float(value[index]) - expected))
    return largest


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("method", exportable_methods())
def test_every_exportable_method(method, keep_aspect):
    assert differences(build(method, keep_aspect)) < 2e-5


@pytest.mark.parametrize(
    "settings",
    [
        {"aggregation": "layers", "tap_fusion": "sum", "map_from": "abnormal"},
        {"normalise_map": "image", "alpha": 0.7},
        {"top_level": "patches", "top_share": 0.3},
        {"stream_layers": (1, 3), "stream_share": 0.5},
        {"stream_layers": (2,), "neighbour_weight": 0.5},
        {"neighbour_weight": 1.0, "aggregation": "layers", "tap_fusion": "sum"},
        {"stream_layers": (2,), "aggregation": "layers", "tap_fusion": "sum"},
        {"refiner": 5},
        {"refiner": 5, "stream_layers": (2,), "top_level": "patches", "aggregation": "layers", "tap_fusion": "sum"},
        {"global_score": "cosine", "alpha": 0.1, "sigma": 0.0},
        {"head_weights": False, "aggregation": "sum", "similarity": "qq", "csa_scale": 0.2},
    ],
)
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_settings(settings, keep_aspect):
    assert differences(build(keep_aspect=keep_aspect, **settings)) < 2e-5


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("settings", [{}, {"refiner": 5}, {"aggregation": "layers", "tap_fusion": "sum"}])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_reference_images(settings, keep_aspect, count):
    """Of several sizes; of the images that are judged, some are references themselves."""
    detector = build(keep_aspect=keep_aspect, **settings)
    shown = alike(SIZES[:4])
    known = [pair[0] for pair in [*shown, *alike([(44, 60)] * 5, seed=1)]]
    before = detector.predict_arrays([shown[0][1]])[0].score
    detector.set_references(known[:count])
    assert detector.predict_arrays([shown[0][1]])[0].score != pytest.approx(before, abs=1e-3)
    assert differences(detector, shown) < 2e-5


def test_an_image_whose_references_are_all_copies_of_it():
    detector, image = build(), np.random.default_rng(3).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    alone = detector.predict_arrays([image])[0]
    detector.set_references([image, image])
    with torch.no_grad():
        maps, score, *_ = ExportGraph(detector)(torch.from_numpy(image[None]))
    np.testing.assert_allclose(maps[0].numpy(), alone.anomaly_map, atol=1e-5)
    assert float(score[0]) == pytest.approx(alone.score, abs=1e-5)


def test_at_the_towers_own_size():
    assert differences(build(image_size=42)) < 2e-5


@pytest.mark.parametrize("rarity", [False, True])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_detail_filters(keep_aspect, rarity):
    vision = VisionConfig(64, 3, 1, 16, 48, detail=6, rarity=rarity)
    backbone = make_backbone(replace(make_config(), vision=vision, keep_aspect=keep_aspect))
    assert differences(Detector(backbone, device="cpu", precision="fp32", image_size=64)) < 2e-5


def test_learnt_head_weights_count():
    detector = build()
    plain = ExportGraph(detector)
    with torch.no_grad():
        detector.method.head_weight.mul_(torch.linspace(-2, 3, detector.method.head_weight.numel()).reshape(-1, 2))
    assert differences(detector) < 2e-5
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 50, 60, 3), dtype=np.uint8))
    with torch.no_grad():
        assert (plain(image)[0] - ExportGraph(detector)(image)[0]).abs().max() > 1e-4  # they were copied when built


def test_the_text_tower_is_gone():
    detector = build()
    graph = ExportGraph(detector)
    kept = {id(value) for value in graph.parameters()}
    assert not kept & {id(value) for value in detector.backbone.text.parameters()}
    assert not kept & {id(value) for value in detector.method.prompts.parameters()}
    assert {id(value) for value in detector.backbone.vision.parameters()} == kept


def test_long_pictures_with_a_least_short_side():
    assert differences(build(keep_aspect=True, least_side=0.76)) < 2e-5


@pytest.mark.parametrize(("image_size", "least_side"), [(42, 0.0), (56, 0.76), (518, 0.0), (518, 0.8), (56, 1.0)])
def test_input_sizes_are_the_eager_ones(image_size, least_side):
    graph = ExportGraph(build(keep_aspect=True, image_size=image_size, least_side=least_side))
    rng = np.random.default_rng(2)
    sides = [tuple(pair) for pair in rng.integers(1, 3000, (60, 2)).tolist()]
    patches = round(image_size / 14)
    sides += [((2 * k - 1) ** 2, 4 * patches**2) for k in range(1, 2 * patches)]  # where rounding is a tie
    sides += [(2 * patches, 2 * patches + k) for k in range(1, 6 * patches)]  # and where the least short side's may be
    for height, width in sides + [pair[::-1] for pair in sides]:
        expected = input_size(height, width, image_size=image_size, patch=14, keep_aspect=True, least_side=least_side)
        assert tuple(count * 14 for count in graph.grid(height, width)) == expected, (height, width)


def test_others_are_refused_with_a_sentence():
    refused = sorted(set(list_methods()) - set(exportable_methods()))
    assert "winclip" in refused
    with pytest.raises(InputError, match=r"winclip cannot be exported.*headclip"):
        ExportGraph(build("winclip"))
    with pytest.raises(InputError, match="position_interpolation=bicubic cannot be exported"):
        ExportGraph(build(position_interpolation="bicubic"))
