"""Explanations of an image, worked out by a real, if tiny, model."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from headclip.inference.detector import Detector
from headclip.inference.predict import predict_run
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


def test_another_model_explains_nothing(client, detector, run):
    site = client(detector=detector, runs=(run,))
    answer = site.get(f"/runs/first-run/inspect/{image_id(NAME)}")
    assert answer.status_code == 409
    assert "another model" in answer.json()["detail"]


def test_without_the_model_or_the_file(client, detector, tiny_run, tmp_path):
    assert client(runs=(tiny_run,)).get(f"/runs/tiny/inspect/{image_id(NAME)}").status_code == 503
    assert (
        client(runs=(tiny_run,), detector=FakeDetector()).get(f"/runs/tiny/inspect/{image_id(NAME)}").status_code == 503
    )
    (tmp_path / "in" / NAME).unlink()
    answer = client(detector=detector, runs=(tiny_run,)).get(f"/runs/tiny/inspect/{image_id(NAME)}")
    assert answer.status_code == 404
    assert str(tmp_path) not in answer.text
