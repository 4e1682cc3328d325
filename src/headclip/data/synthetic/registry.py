"""The table of scene families: each is one function that draws a picture, registered by `scene`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headclip.data.synthetic.base import Rng, Scene

Draw = Callable[[Rng, int, int], Scene]


@dataclass(frozen=True)
class SceneFamily:
    """draw(rng, height, width) gives a new Scene; `weight` is the family's share relative to the others'."""

    name: str
    weight: float
    draw: Draw


FAMILIES: dict[str, SceneFamily] = {}


def scene(name: str, weight: float = 1.0) -> Callable[[Draw], Draw]:
    """Register a drawing function as the family `name`."""

    def register(draw: Draw) -> Draw:
        FAMILIES[name] = SceneFamily(name, weight, draw)
        return draw

    return register
