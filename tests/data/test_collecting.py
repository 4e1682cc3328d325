"""Which pictures of a package `scripts/collect_photographs.py` keeps."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "collect_photographs.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("collect_photographs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def stamp(side: int = 140, spread: float = 60.0) -> np.ndarray:
    """A disc of many colours (or few, where spread is 0) on nothing."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = np.clip(128 + spread * rng.standard_normal((side, side, 3)), 0, 255)
    pixels[..., 3] = 255 * (np.hypot(rows, columns) < 0.45 * side)
    return pixels


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("./usr/share/games/x/textures/stone/wall1.jpg", True),
        ("./usr/share/games/x/textures/stone/wall1_norm.jpg", False),
        ("./usr/share/games/x/textures/skies/blue.jpg", False),
        ("./usr/share/games/x/models/wall1.jpg", False),
        ("./usr/share/games/redeclipse/data/jojo/concrete07.png", True),
        ("./usr/share/games/redeclipse/data/jojo/concrete07_z.png", False),
        ("./usr/share/games/redeclipse/data/wicked/wickedtile19.jpg", True),
        ("./usr/share/games/redeclipse/data/wicked/wickedtile19s.jpg", False),
        ("./usr/share/games/redeclipse/data/skyboxes/blue.jpg", False),
        ("./usr/share/tuxpaint/stamps/food/fruit/apple.png", True),
        ("./usr/share/tuxpaint/stamps/food/fruit/apple_mirror.png", False),
        ("./usr/share/tuxpaint/stamps/food/fruit/cartoon/apple.png", False),
    ],
)
def test_paths_tell_surfaces_and_photographed_things(script, name, wanted):
    assert script.wanted(name) is wanted


def test_things_are_kept_with_their_opacity_and_cut_to_it(script, tmp_path):
    assert script.keep("./usr/share/tuxpaint/stamps/food/plum.png", png(stamp()), tmp_path, set())
    with Image.open(tmp_path / "plum.png") as kept:
        assert kept.mode == "RGBA"
        assert 120 <= kept.width <= 132
        assert kept.getchannel("A").getextrema() == (0, 255)


def test_two_stamps_of_one_name_are_both_kept(script, tmp_path):
    seen = set()
    assert script.keep("./usr/share/tuxpaint/stamps/food/plum.png", png(stamp()), tmp_path, seen)
    assert script.keep("./usr/share/tuxpaint/stamps/trees/plum.png", png(stamp(side=150)), tmp_path, seen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plum-2.png", "plum.png"]


@pytest.mark.parametrize("pixels", [stamp(spread=0.0), stamp(side=60)], ids=["drawn", "small"])
def test_drawings_and_small_stamps_are_left_out(script, tmp_path, pixels):
    assert not script.keep("./usr/share/tuxpaint/stamps/food/plum.png", png(pixels), tmp_path, set())
    assert not list(tmp_path.iterdir())


def test_surfaces_are_kept_once_as_jpeg(script, tmp_path):
    content, seen = png(stamp(side=300)[..., :3].copy()), set()
    assert script.keep("./x/textures/stone/wall.png", content, tmp_path, seen)
    assert not script.keep("./x/textures/stone/again.png", content, tmp_path, seen)
    assert [path.suffix for path in tmp_path.iterdir()] == [".jpg"]
