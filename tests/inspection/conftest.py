"""A tiny detector, and a picture with something on it."""

from __future__ import annotations

import numpy as np
import pytest

from headclip.inference.detector import Detector
from tiny_clip import make_backbone, make_config, stirred


@pytest.fixture(scope="session")
def tiny():
    return make_backbone(make_config())


@pytest.fixture
def picture():
    """(50, 70, 3): grey noise with a bright square."""
    image = np.random.default_rng(3).integers(60, 120, (50, 70, 3)).astype(np.uint8)
    image[10:24, 30:44] = (250, 200, 40)
    return image


@pytest.fixture
def detector_of(tiny):
    """A detector on the tiny backbone; head weights are moved away from 1, as training would."""

    def make(method: str, **settings):
        detector = Detector(tiny, method=method, settings=settings, device="cpu", precision="fp32", image_size=42)
        weights = getattr(detector.method, "head_weight", None)
        if weights is not None:
            values = np.linspace(0.2, 1.9, weights.numel(), dtype=np.float32).reshape(weights.shape)
            weights.data.copy_(weights.new_tensor(values))
        stirred(detector.method)
        return detector

    return make
