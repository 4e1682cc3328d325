"""Explanations of an image, worked out by a real, if tiny, model."""

from __future__ import annotations

import base64
import warnings

import numpy as np
import pytest
import torch

from headclip.clip.vision import VisionTower
from headclip.inference.detector import Detector
from headclip.inference.predict import predict_run
from headclip.inspection import KeptFeatures
from headclip.runs.facts import as_facts
from headclip.web.inspect_api import different
from headclip.web.kept import KeptImages
from headclip.web.runs import image_id
from inference.fake_detector import FakeDetector
from inference.pictures import write_pictures
from tiny_clip import make_backbone, make_config

NAME = "right/part 0.png"


@pytest.fixture
def detector():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no checkpoint
        return Detector(make_backbone(make_config()), device="cpu", image_size=42, settings={"seed": 1})


@pytest.fixture
def tiny_run(detector, tmp_path):
    return predict_run(detector, [write_pictures(tmp_path / "in", 2)], tmp_path / "tiny").folder


def test_the_parts_of_a_score_add_up(client, detector, tiny_run):
    site = client(detector=detector, runs=(tiny_run,))
    rows = site.get("/runs/tiny/images.json").json()
    score = rows["scores"][rows["names"].index(NAME)]
    seen = site.get(f"/runs/tiny/inspect/{image_id(NAME)}").json()
    split = seen["split"]
    assert (1 - split["alpha"]) * split["global_score"] + split["alpha"] * split["local_score"] == pytest.approx(
        split["score"], abs=1e-5
    )
    assert split["score"] == pytest.approx(score, abs=1e-3)
    layers = seen["layers"]
    assert len(layers["parts"]) == len(layers["contrast"]) == len(layers["contributions"])
    assert np.array(layers["contributions"]).ndim == 3
    assert len(seen["heads"]["weights"]) == len(seen["heads"]["layers"])
    assert "anomaly_map" not in str(seen.keys())
    assert "map" not in seen
    assert seen["switch"] == {"depth": 3, "own": [0, 2], "chosen": [0, 2], "silent": []}


@pytest.fixture
def passes(monkeypatch):
    """How often the tower has begun to run."""
    begun = []
    embed = VisionTower.embed

    def counted(self, *arguments):
        begun.append(1)
        return embed(self, *arguments)

    monkeypatch.setattr(VisionTower, "embed", counted)
    return begun


def test_switched_layers_are_those_of_a_detector_with_them_and_need_no_second_pass(
    client, detector, tiny_run, tmp_path, passes
):
    """The head weights are those that training starts from, 1, so that another detector has the same."""
    site = client(detector=detector, runs=(tiny_run,))
    address = f"/runs/tiny/inspect/{image_id(NAME)}"
    passes.clear()
    first = site.get(address).json()
    assert len(passes) == 1
    found = site.get(address, params={"layers": "0,2,3"}).json()
    site.get(address, params={"layers": "1,3", "silent": "1.1,3.2"})
    again = site.get(address, params={"layers": ",".join(map(str, first["switch"]["own"]))}).json()
    assert len(passes) == 1
    assert again["split"] == first["split"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = Detector(detector.backbone, device="cpu", image_size=42, settings={"seed": 1, "csa_layers": [2, 3]})
    expected = other.predict([tmp_path / "in" / NAME])[0]
    assert found["split"]["score"] == pytest.approx(expected.score, abs=1e-5)
    assert found["split"]["score"] != pytest.approx(first["split"]["score"], abs=1e-6)
    height, width = found["map"]["height"], found["map"]["width"]
    levels = np.frombuffer(base64.b64decode(found["map"]["levels"]), "<u2").reshape(height, width)
    assert (height, width) == expected.anomaly_map.shape  # small enough to come as it is
    np.testing.assert_allclose(levels / 65535, expected.anomaly_map, atol=2e-5)
    assert found["switch"]["chosen"] == [0, 2, 3]
    assert found["layers"]["parts"] == [0, 2, 3]
    assert found["heads"]["layers"] == [2, 3]
    assert not {"contributions", "contrast", "head_contrast"} - found["layers"].keys()


def test_silent_heads_and_no_start(client, detector, tiny_run):
    site = client(detector=detector, runs=(tiny_run,))
    address = f"/runs/tiny/inspect/{image_id(NAME)}"
    found = site.get(address, params={"layers": "2,3", "silent": "2.1"}).json()
    assert found["switch"] == {"depth": 3, "own": [0, 2], "chosen": [2, 3], "silent": [[2, 1]]}
    assert found["layers"]["parts"] == [2, 3]
    assert found["layers"]["head_contrast"][0][0] == 0.0
    assert found["heads"]["weights"][0] == [1.0, 1.0]  # what was learnt, whether it counts or not


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("layers=4", "from 1 to 3"),
        ("layers=0", "no layer is left"),
        ("layers=2,2", "different"),
        ("layers=../1", "pattern"),
        ("silent=2.3", "2 heads each"),
        ("silent=2", "pattern"),
        (f"layers={'1,' * 300}1", "400"),
    ],
)
def test_selections_that_are_refused(client, detector, tiny_run, query, words):
    answer = client(detector=detector, runs=(tiny_run,)).get(f"/runs/tiny/inspect/{image_id(NAME)}?{query}")
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_a_method_without_such_layers(client, tmp_path):
    other = Detector(make_backbone(make_config()), method="clip", device="cpu", image_size=42)
    run = predict_run(other, [write_pictures(tmp_path / "in", 1)], tmp_path / "plain").folder
    site = client(detector=other, runs=(run,))
    address = f"/runs/plain/inspect/{image_id(NAME)}"
    seen = site.get(address).json()
    assert seen["layers"] is seen["switch"] is None
    assert "no local stream" in seen["absent"]["layers"]
    refused = site.get(address, params={"layers": "1"})
    assert refused.status_code == 422
    assert "cannot be switched" in refused.json()["detail"]


def test_a_changed_image_is_looked_at_again(client, detector, tiny_run, tmp_path, passes):
    site = client(detector=detector, runs=(tiny_run,))
    address = f"/runs/tiny/inspect/{image_id(NAME)}"
    before = site.get(address).json()
    write_pictures(tmp_path / "elsewhere", 2)
    (tmp_path / "in" / NAME).write_bytes((tmp_path / "elsewhere" / "left" / "part 1.png").read_bytes())
    passes.clear()
    assert site.get(address).json()["split"] != before["split"]
    assert len(passes) == 1


def test_what_is_kept_is_bounded():
    def features(size):
        return KeptFeatures((1, 1), (1, 1), torch.zeros(size), {}, {})

    kept = KeptImages(100)
    for name in "abc":
        kept.put(name, features(10))  # 40 bytes
    assert (len(kept), kept.nbytes) == (2, 80)
    assert kept.get("a") is None
    assert kept.get("b") is not None
    kept.put("d", features(6))
    assert kept.get("c") is None  # asked for before b
    assert kept.get("b") is not None
    kept.put("large", features(1000))
    assert (len(kept), kept.nbytes) == (1, 4000)  # the latest stays, else it could not be switched at all


def test_another_model_explains_nothing(client, detector, run):
    site = client(detector=detector, runs=(run,))
    answer = site.get(f"/runs/first-run/inspect/{image_id(NAME)}")
    assert answer.status_code == 409
    assert "another model" in answer.json()["detail"]


def test_images_prepared_in_another_way_come_from_another_model(detector):
    facts = detector.describe()
    assert different(facts, facts) == []
    assert different(facts, {**facts, "keep_aspect": not facts["keep_aspect"]}) == ["keep aspect"]
    assert different(facts, {**facts, "least_side": 0.5}) == ["least side"]
    assert different(as_facts(facts), {**facts, "config": {**facts["config"], "alpha": 0.25}}) == ["config.alpha"]


def test_without_the_model_or_the_file(client, detector, tiny_run, tmp_path):
    assert client(runs=(tiny_run,)).get(f"/runs/tiny/inspect/{image_id(NAME)}").status_code == 503
    assert (
        client(runs=(tiny_run,), detector=FakeDetector()).get(f"/runs/tiny/inspect/{image_id(NAME)}").status_code == 503
    )
    (tmp_path / "in" / NAME).unlink()
    answer = client(detector=detector, runs=(tiny_run,)).get(f"/runs/tiny/inspect/{image_id(NAME)}")
    assert answer.status_code == 404
    assert str(tmp_path) not in answer.text
