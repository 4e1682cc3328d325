"""One seed in, one labelled picture out: scene, distractors, defect, camera, caption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from headclip.data.synthetic.base import Rng, Scene
from headclip.data.synthetic.camera import Look, as_seen, draw_look, expose, orient
from headclip.data.synthetic.captions import abnormal_caption, normal_caption
from headclip.data.synthetic.defects import DEFECTS, apply_defect
from headclip.data.synthetic.distractors import add_distractors
from headclip.data.synthetic.photographs import Photographs
from headclip.data.synthetic.scenes import FAMILIES, make_scene
from headclip.errors import InputError

RENDERER_VERSION = 14
"""Raised whenever the same seed would give another picture."""

MIN_SIZE = 32
_STREAMS = 4


@dataclass(eq=False)
class Sample:
    """One rendered picture.

    image: (3, H, W) uint8; mask: (H, W) bool, all False for normal ones; label: 1 = has a defect; family and
    noun: what is shown; defect: its name, "" if normal; seed: `render(seed, ...)` gives the same sample
    again.
    """

    image: Tensor
    mask: Tensor
    caption: str
    label: int
    family: str
    noun: str
    defect: str
    seed: int


@dataclass
class Stages:
    """What a sample is made of, before the camera: for tests and for looking into the renderer.

    clean and drawn: (C, H, W) float in [0, 1] without and with the defect, C = 1 when the look is grey, in
    the scene's own orientation; they are equal outside mask (H, W) to the last bit.
    """

    scene: Scene
    look: Look
    clean: Tensor
    drawn: Tensor
    mask: Tensor
    defect: str


def render(
    seed: int,
    size: int | tuple[int, int] = 224,
    *,
    device: torch.device | str = "cpu",
    defect_rate: float = 0.5,
    family: str | None = None,
    defect: str | None = None,
    photographs: Photographs | None = None,
) -> Sample:
    """Render one picture. size: side or (height, width) in pixels, from 32; family, defect: of this kind alone;
    photographs: used instead of rendered scenes now and then.

    The sample depends on the seed, the size and the settings alone. Scene, camera and orientation have
    streams of randomness of their own: the same seed with defect_rate 0 and 1 shows the same thing without
    and with a defect. On another device the same seed gives another picture (random fields differ there).

    >>> sample = render(7, size=64, defect_rate=1.0)
    >>> sample.image.shape, sample.label, bool(sample.mask.any())
    (torch.Size([3, 64, 64]), 1, True)
    """
    with one_thread():
        stages = build(
            seed,
            check_size(size),
            device=device,
            defect_rate=defect_rate,
            family=family,
            defect=defect,
            photographs=photographs,
        )
        return _photographed(stages, seed, device)


def _photographed(stages: Stages, seed: int, device: torch.device | str) -> Sample:
    look = stages.look
    camera = Rng(_STREAMS * seed + 2, device)
    photograph = orient(expose(stages.drawn, look, camera, stages.clean), look)
    image = (photograph * 255 + 0.5).to(torch.uint8)
    image = (image.expand(3, -1, -1) if image.shape[0] == 1 else image).contiguous()
    mask = orient(stages.mask, look).contiguous()
    words = Rng(_STREAMS * seed + 3, "cpu")
    noun = stages.scene.noun
    if stages.defect:
        details, place = describe(stages.drawn, stages.clean, stages.mask, mask)
        caption = abnormal_caption(noun, words, stages.defect, look.words, details, place)
    else:
        caption = normal_caption(noun, words, look.words)
    label = int(bool(stages.defect))
    return Sample(image, mask, caption, label, stages.scene.family, noun, stages.defect, seed)


def build(
    seed: int,
    size: tuple[int, int],
    *,
    device: torch.device | str = "cpu",
    defect_rate: float = 0.5,
    family: str | None = None,
    defect: str | None = None,
    photographs: Photographs | None = None,
) -> Stages:
    """The stages of `render` before the camera; size is the (height, width) of the final picture."""
    check_kinds(family, defect, photographs)
    if seed < 0:
        raise InputError(f"The seed {seed} is negative. Use a whole number from 0.")
    if not 0 <= defect_rate <= 1:
        raise InputError(f"The defect rate {defect_rate} is not a share. Use a number from 0 to 1.")
    height, width = size
    making, harming = Rng(_STREAMS * seed, device), Rng(_STREAMS * seed + 1, device)
    look = draw_look(making)
    if look.turn:
        height, width = width, height
    if photographs is not None and making.chance(photographs.share):
        scene = photographs.draw(making, height, width)
    else:
        scene = make_scene(making, height, width, family)
    scene = add_distractors(as_seen(scene, look), making)
    if not harming.chance(defect_rate):
        mask = torch.zeros_like(scene.foreground)
        return Stages(scene, look, scene.image, scene.image, mask, "")
    drawn, mask, name = apply_defect(scene, harming, defect)
    return Stages(scene, look, scene.image, drawn, mask, name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside: sums split over threads round differently, and pictures must not.

    At these sizes one thread is no slower. The setting is the process's; rendering in several threads of one
    process is therefore safe only when torch runs on one thread anyway.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def describe(drawn: Tensor, clean: Tensor, mask: Tensor, seen_mask: Tensor) -> tuple[list[str], str]:
    """True words about a defect: adjectives of size and tone, and its place in the oriented picture.

    Tone and amount come from before the camera (drawn, clean, mask), the place from the oriented mask.
    """
    height, width = seen_mask.shape
    area, change = torch.stack([mask.sum().float(), (drawn - clean).mean(0).sum()]).tolist()
    by_row, by_column = seen_mask.sum(1).float(), seen_mask.sum(0).float()
    rows = torch.arange(height, device=mask.device, dtype=torch.float32)
    columns = torch.arange(width, device=mask.device, dtype=torch.float32)
    row, column = (torch.stack([(by_row * rows).sum(), (by_column * columns).sum()]) / area).tolist()
    details = []
    share = area / (height * width)
    if share < 0.004:
        details.append("small")
    elif share > 0.04:
        details.append("large")
    mean_change = change / area
    if abs(mean_change) > 0.02:
        details.append("dark" if mean_change < 0 else "bright")
    return details, _place(row / height, column / width)


def _place(row: float, column: float) -> str:
    vertical = "top" if row < 1 / 3 else "bottom" if row > 2 / 3 else ""
    horizontal = "left" if column < 1 / 3 else "right" if column > 2 / 3 else ""
    if not vertical and not horizontal:
        return "in the centre"
    return f"at the {' '.join(word for word in (vertical, horizontal) if word)}"


def render_batch(seeds: Iterable[int], size: int | tuple[int, int] = 224, **settings: Any) -> list[Sample]:
    """`render` for each seed; every sample is what `render` alone gives."""
    return [render(seed, size, **settings) for seed in seeds]


def check_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a size; InputError below 32 pixels."""
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < MIN_SIZE:
        raise InputError(f"The size {height} x {width} is too small to render. Use at least {MIN_SIZE} pixels a side.")
    return height, width


def check_kinds(family: str | None, defect: str | None, photographs: Photographs | None) -> None:
    """InputError where there is no such family of scenes, or no such defect, or a family beside photographs."""
    if family is not None and photographs is not None:
        raise InputError("photographs show no family of rendered scenes; give one of the two")
    for kind, name, known in (("family", family, FAMILIES), ("defect", defect, DEFECTS)):
        if name is not None and name not in known:
            raise InputError(f"There is no {kind} '{name}'. Use one of: {', '.join(sorted(known))}.")


def item_seed(seed: int, index: int) -> int:
    """The seed of item `index` of a rendered set: sets of different seeds share no picture up to a million
    items."""
    return seed * 1_000_003 + index


class SyntheticDataset(Dataset[Sample]):
    """`count` rendered pictures, made when they are read: item i is `render(seed * 1_000_003 + i)`.

    Reads like any labelled dataset, can be read in any order and by any number of workers.
    """

    def __init__(
        self,
        seed: int,
        count: int,
        size: int | tuple[int, int] = 224,
        defect_rate: float = 0.5,
        *,
        device: torch.device | str = "cpu",
        family: str | None = None,
        defect: str | None = None,
        photographs: Photographs | None = None,
    ) -> None:
        if count < 1:
            raise InputError(f"A rendered set of {count} pictures is empty. Ask for at least one.")
        self.seed, self.count, self.size = seed, count, check_size(size)
        check_kinds(family, defect, photographs)
        self.family, self.defect = family, defect
        self.defect_rate, self.device, self.photographs = defect_rate, device, photographs

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not -self.count <= index < self.count:
            raise IndexError(f"item {index} of {self.count}")
        seed = item_seed(self.seed, index % self.count)
        return render(
            seed,
            self.size,
            device=self.device,
            defect_rate=self.defect_rate,
            family=self.family,
            defect=self.defect,
            photographs=self.photographs,
        )

    def fingerprint(self) -> str:
        """A name of the set's content, sha256 hex: the same for the same seed, count, settings and
        renderer."""
        facts = {
            "set": "headclip synthetic",
            "renderer": RENDERER_VERSION,
            "seed": self.seed,
            "count": self.count,
            "size": list(self.size),
            "defect_rate": self.defect_rate,
            "family": self.family,
            "device": torch.device(self.device).type,
        }
        if self.defect is not None:
            facts["defect"] = self.defect
        if self.photographs is not None:
            facts["photographs"] = self.photographs.fingerprint()
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
