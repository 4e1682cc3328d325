"""`torch.compile` is asked for, refused with advice where it cannot be, and changes nothing but time."""

import numpy as np
import pytest
import torch

from headclip import Detector
from headclip.clip.weights import load_backbone
from headclip.errors import InputError
from headclip.inference.compiling import check_compiler
from tiny_clip import make_backbone, make_config


def test_without_a_compiler_there_is_advice(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and none of g\+\+"):
        check_compiler(torch.device("cpu"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="CXX names no-such-compiler"):
        Detector(make_backbone(make_config()), method="clip", device="cpu", compile=True)


def test_a_compiled_tower_has_one_pass_at_a_time(monkeypatch):
    monkeypatch.setattr("headclip.inference.detector.compile_tower", lambda tower: None)
    assert Detector(make_backbone(make_config()), method="clip", device="cpu", compile=True).passes == 1


@pytest.mark.slow
def test_a_compiled_tower_agrees_with_the_plain_one():
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (256, 256, 3), dtype=np.uint8) for _ in range(2)]
    plain = Detector(load_backbone("embedded"), device="cpu", precision="fp32").predict(images)
    compiled = Detector(load_backbone("embedded"), device="cpu", precision="fp32", compile=True).predict(images)
    for one, other in zip(plain, compiled, strict=True):
        assert abs(one.score - other.score) < 1e-5
        assert np.abs(one.anomaly_map - other.anomaly_map).max() < 1e-4
