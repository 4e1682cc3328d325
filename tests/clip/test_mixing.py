"""scripts/mix_models.py: a model between two stages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from headclip.clip.config import VisionConfig
from headclip.clip.weights import load_backbone, save_backbone
from headclip.errors import InputError
from mix_models import mixed
from tiny_clip import assert_same, make_backbone, make_config

SCRIPT = Path(__file__).parents[2] / "scripts" / "mix_models.py"
CONFIG = replace(make_config("gelu"), vision=VisionConfig(64, 3, 1, 16, 48, activation="gelu", detail=6))
PLAIN = replace(CONFIG, vision=replace(CONFIG.vision, detail=0), default_image_size=96)
PIXELS = torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(2))


def test_the_ends_are_the_two_models():
    earlier, later = make_backbone(PLAIN, seed=1), make_backbone(CONFIG, seed=2)
    assert_same(mixed(earlier, later, 1.0), later)
    first = mixed(earlier, later, 0.0)
    assert first.config == later.config
    with torch.no_grad():
        assert torch.allclose(first.vision(PIXELS).cls, earlier.vision(PIXELS).cls, atol=1e-5)


def test_what_lies_between():
    earlier, later = make_backbone(PLAIN, seed=1), make_backbone(CONFIG, seed=2)
    between, one, other = (each.state_dict() for each in (mixed(earlier, later, 0.25), earlier, later))
    name = "vision.blocks.1.mlp.fc.weight"
    torch.testing.assert_close(between[name], 0.75 * one[name] + 0.25 * other[name])
    torch.testing.assert_close(between["vision.detail.mix"], 0.25 * other["vision.detail.mix"])
    assert torch.equal(between["vision.detail.filters.weight"], other["vision.detail.filters.weight"])
    with pytest.raises(InputError, match="differs from the architecture"):
        mixed(make_backbone(make_config()), later, 0.5)


def test_filters_that_both_have_are_mixed_like_all_else():
    earlier, later = make_backbone(CONFIG, seed=1), make_backbone(CONFIG, seed=2)
    name = "vision.detail.filters.weight"
    between, one, other = (each.state_dict()[name] for each in (mixed(earlier, later, 0.25), earlier, later))
    torch.testing.assert_close(between, 0.75 * one + 0.25 * other)
    assert_same(mixed(earlier, later, 0.0), earlier)


def test_the_script(tmp_path: Path):
    earlier, later = make_backbone(PLAIN, seed=1), make_backbone(CONFIG, seed=2)
    for name, one in (("a", earlier), ("b", later)):
        save_backbone(one, tmp_path / name)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c")]
    assert subprocess.run([*command, "--share", "2"], capture_output=True, check=False).returncode == 1
    subprocess.run([*command, "--share", "0.5"], check=True)
    expected = mixed(load_backbone(tmp_path / "a"), load_backbone(tmp_path / "b"), 0.5)
    found = load_backbone(tmp_path / "c").state_dict()
    assert all(torch.allclose(found[name], value, atol=2e-3) for name, value in expected.state_dict().items())
