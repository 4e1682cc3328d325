"""Pictures of 3-D models as cut-outs, for the scripts that make them for `headclip pretrain --photographs`.

Drawing needs pyvista, which is not among the project's dependencies.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headclip.files import write_atomically

SIDE, SAMPLES = 384, 2  # px of a cut-out at most, and how much larger it is drawn
SMALLEST = 96  # px
UPWARD = {"y": (0, 1, 0), "z": (0, 0, 1)}
Array = np.ndarray[Any, Any]


def keep(file: Path, pixels: Callable[[], Array]) -> bool:
    """Write the cut-out that `pixels` draws, (H, W, 4) uint8, unless it is there; whether it is large enough to."""
    if file.is_file():
        return True
    image = Image.fromarray(pixels())
    box = image.getchannel("A").getbbox()
    if box is None:
        return False
    image = image.crop(box)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if max(image.size) < SMALLEST or min(image.size) < max(image.size) // 7:
        return False
    stream = io.BytesIO()
    image.save(stream, "PNG")
    write_atomically(file, stream.getvalue())  # a part of one would be kept by the next run
    return True


def draw(fill: Callable[[Any], None], rng: random.Random, up: str = "z", turned: bool = True) -> Array:
    """(H, W, 4) uint8 picture of what `fill` puts into a pyvista plotter: a side that is seen from above, and lamps.

    up: the axis, "y" or "z", that points upward in the model. turned: whether the camera may be rolled, as over
    things that lie on a table.
    """
    import pyvista

    plotter = pyvista.Plotter(off_screen=True, window_size=[SIDE * SAMPLES, SIDE * SAMPLES], lighting="none")
    try:
        fill(plotter)
        for light in lamps(rng, up):
            plotter.add_light(pyvista.Light(light_type="scene light", **light))
        around, height = rng.uniform(0, 2 * np.pi), rng.choice([np.pi / 2 - 0.01, rng.uniform(0.35, 1.5)])
        plotter.view_vector(direction(around, height, up), viewup=UPWARD[up])
        if turned:
            plotter.camera.roll += rng.choice([0, 0, 90, rng.uniform(0, 360)])
        plotter.reset_camera()
        plotter.enable_ssao(radius=float(plotter.length) / 15, kernel_size=48)
        return np.asarray(plotter.screenshot(None, transparent_background=True, return_img=True))
    finally:
        plotter.close()


def direction(around: float, height: float, up: str) -> tuple[float, float, float]:
    """A unit vector at these angles (radians) around the axis that points upward and above the plane across it."""
    x, y, z = np.cos(around) * np.cos(height), np.sin(around) * np.cos(height), np.sin(height)
    return (x, y, z) if up == "z" else (y, z, x)


def lamps(rng: random.Random, up: str) -> Iterator[dict[str, Any]]:
    """A bright lamp and one or two weaker ones."""
    yield lamp(rng, rng.uniform(0.7, 1.2), up)
    for _ in range(rng.randint(1, 2)):
        yield lamp(rng, rng.uniform(0.1, 0.4), up)


def lamp(rng: random.Random, intensity: float, up: str) -> dict[str, Any]:
    """A far lamp somewhere above, a little warm or cold."""
    around, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.4)
    place = direction(around, height, up)
    tint = rng.uniform(-0.1, 0.1)
    colour = (1.0 - max(0.0, -tint), 1.0 - abs(tint) / 2, 1.0 - max(0.0, tint))
    return {"position": place, "color": colour, "intensity": intensity}
