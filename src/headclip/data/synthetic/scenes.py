"""Defect-free pictures of many materials, parts and tissues, none drawn twice."""

from __future__ import annotations

from headclip.data.synthetic import parts, surfaces, tissue
from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.registry import FAMILIES, SceneFamily, scene

__all__ = ["FAMILIES", "SceneFamily", "make_scene", "parts", "scene", "surfaces", "tissue"]


def make_scene(rng: Rng, height: int, width: int, family: str | None = None) -> Scene:
    """Draw one scene of `height` x `width` pixels (64 to 640 each, sides up to 1:3).

    The family is drawn by weight unless it is named.

    Raises KeyError for a family that is not in FAMILIES.
    """
    if family is None:
        names = list(FAMILIES)
        family = rng.choice(names, [FAMILIES[name].weight for name in names])
    drawn = FAMILIES[family].draw(rng, height, width)
    drawn.image = drawn.image.clamp(0.0, 1.0)
    return drawn
