"""Puts a defect on a scene: chooses one that fits, draws one or some of it, and keeps the exact mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Importing these modules registers their defects.
from headclip.data.synthetic import defects_areas, defects_structure, defects_tissue  # noqa: F401
from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.defects_base import DEFECTS, Canvas, Change, Defect, defect
from headclip.data.synthetic.defects_lines import plain_scratch

THRESHOLD = 0.012
"""Smallest change of a pixel (of 1) that counts; smaller ones are undone, so image and mask agree exactly."""

VISIBLE = 0.025
"""At least MIN_PIXELS pixels must change by this much, or the defect is drawn again, stronger."""

MIN_PIXELS = 6
LOW_CONTRAST, HIGH_CONTRAST = 0.06, 1.0
ATTEMPTS = 6

WHOLE = 0.6
"""A variant that changes a larger share of the part than this is left out: it is another part, not a damaged
one."""

MOST = 1 / 3
"""Of a picture: no further instance of a defect is drawn once so much is covered."""

LARGEST = 1 / 2
"""A variant that changes a larger share of the picture than this is left out: nothing is left to compare it
with."""

GAP = 1 / 24
"""Changed spots of one variant that lie nearer than this share of the short side are one region: a shifted print
is marked as a print, as people mark it, not as the hundred edges where old and new ink differ."""

UNSEEN_VARIANTS = {"missing print": 0.2, "wrong colour": 0.2, "missing label": 0.2, "shifted print": 0.2}
"""Variants that hardly anybody can see without knowing how the part should look: drawn less often (others
weigh 1)."""

VARIANTS = {
    "bowel": 0.75,
    "brain": 0.75,
    "dermoscopy": 0.8,
    "solid": 0.6,
    "ultrasound": 0.8,
    "oct": 0.8,
    "photograph": 0.15,
}
"""How often a family's defect is one of its own variants; 0.5 otherwise, and 0.2 on surfaces, whose variants are few
and specific: cracks and stains would hardly occur on them beside these."""

FAVOURED: dict[str, dict[str, float]] = {
    "solar_cell": {"crack": 3.0, "broken area": 3.0},  # what really kills cells
    "electroluminescence": {"crack": 3.0},
    "cast_face": {"crack": 5.0},
    "banded_plate": {"crack": 3.0},
}
"""How many times more often than elsewhere a defect is drawn on a family."""


def apply_defect(scene: Scene, rng: Rng, name: str | None = None) -> tuple[Tensor, Tensor, str]:
    """Draw one kind of defect, mostly once, at most 12 times, on a defect-free scene.

    Parts and grids that bring variants (a missing or bent part) use one of them half of the time. `name`
    forces a kind. Returns the image (C, H, W) in [0, 1], equal to the scene's outside the mask to the last
    bit, but for what a scene's own defects cast; the (H, W) bool mask, never empty; and the defect's name.
    """
    contrast = rng.log_uniform(LOW_CONTRAST, HIGH_CONTRAST)
    share = VARIANTS.get(scene.family, 0.2 if scene.kind == "surface" else 0.5)
    if name is None and scene.variants and rng.chance(share):
        names = sorted(scene.variants)
        chosen = rng.choice(names, [UNSEEN_VARIANTS.get(one, 1.0) for one in names])
        changed = _apply_variant(scene, chosen)
        if changed is not None:
            return changed[0], changed[1], chosen
    canvas = Canvas(scene)
    for _ in range(ATTEMPTS):
        kind = DEFECTS[name] if name is not None else _choose(scene, rng)
        session = _Session(canvas, scene)
        for _ in range(_instances(rng, kind)):
            if float(session.mask.float().mean()) > MOST:
                break
            change = kind.paint(canvas, rng, contrast)
            if change is not None:
                session.add(change)
        if session.visible():
            return canvas.image, session.mask, kind.name
        canvas.image = scene.image
        contrast = min(HIGH_CONTRAST, contrast * 1.8)
    session = _Session(canvas, scene)
    session.add(plain_scratch(canvas, rng))
    return canvas.image, session.mask, "scratch"


def _choose(scene: Scene, rng: Rng) -> Defect:
    fitting = [d for d in DEFECTS.values() if d.fits(scene)]
    # Tissue gets its own and soft defects most of the time; a scratch on mucosa teaches little.
    tissue = scene.kind == "tissue"
    favoured = FAVOURED.get(scene.family, {})
    weights = []
    for one in fitting:
        native = tissue and ("tissue" in one.kinds or one.name == "spot")
        weights.append(one.weight * (9.0 if native else favoured.get(one.name, 1.0)))
    return rng.choice(fitting, weights)


def _instances(rng: Rng, kind: Defect) -> int:
    if kind.few:
        return rng.choice((1, 2), (0.72, 0.28))
    return rng.choice((1, 2, 3, 4, rng.integer(5, 12)), (0.62, 0.19, 0.09, 0.05, 0.05))


@dataclass
class _Session:
    """The drawing of one defect: commits changes to the canvas and gathers the mask."""

    canvas: Canvas
    scene: Scene

    def __post_init__(self) -> None:
        self.canvas.image = self.scene.image.clone()
        self.mask = torch.zeros_like(self.scene.foreground)
        self._strong = 0

    def add(self, change: Change) -> None:
        box, canvas = change.box, self.canvas
        window = (slice(box.top, box.bottom), slice(box.left, box.right))
        old = canvas.image[:, window[0], window[1]]
        new = change.pixels.clamp(0, 1)
        difference = (new - old).abs().amax(0)  # (h, w)
        if change.support is None:
            touched = difference > THRESHOLD
        else:
            touched = change.support > 0.1
            if float((difference * touched).sum()) < THRESHOLD * float(touched.sum()):
                return  # the foreign or moved texture looks like the one it replaces
        if not (canvas.everywhere or change.anywhere):
            touched = touched & canvas.foreground[window]
        canvas.image[:, window[0], window[1]] = torch.where(touched, new, old)
        self.mask[window] |= touched
        self._strong += int(((difference > VISIBLE) & touched).sum())

    def visible(self) -> bool:
        return self._strong >= MIN_PIXELS


def _apply_variant(scene: Scene, name: str) -> tuple[Tensor, Tensor] | None:
    """A variant drawn by the scene, held to the same contract: nothing changes outside the mask but what it casts."""
    image, mask = scene.variants[name]()
    whole = image
    difference = (image - scene.image).abs().amax(0)
    changed = ((difference > THRESHOLD) & mask).float()[None, None]
    image = torch.where(mask, image, scene.image)
    mask = _closed(changed, round(GAP * min(mask.shape)))[0, 0] > 0
    if int(((difference > VISIBLE) & mask).sum()) < MIN_PIXELS:
        return None
    if int(mask.sum()) > min(WHOLE * int(scene.foreground.sum()), LARGEST * mask.numel()):
        return None
    return whole if scene.casts else torch.where(mask, image, scene.image), mask


def _closed(spots: Tensor, gap: int) -> Tensor:
    """Morphological closing of (1, 1, H, W) zeros and ones: gaps up to `gap` pixels wide are filled."""
    reach = max(2, gap // 2)
    return -_largest(-_largest(spots, reach, 0.0), reach, -1.0)


def _largest(field: Tensor, reach: int, beyond: float) -> Tensor:
    """The largest value within `reach` pixels each way, rows and columns in turn; `beyond` stands past the border."""
    for sides, kernel in (((0, 0, reach, reach), (2 * reach + 1, 1)), ((reach, reach, 0, 0), (1, 2 * reach + 1))):
        field = F.max_pool2d(F.pad(field, sides, value=beyond), kernel, stride=1)
    return field


__all__ = ["DEFECTS", "apply_defect", "defect"]
