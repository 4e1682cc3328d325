"""How many images go through a tower at once, and how many such passes side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from headclip.clip.config import VisionConfig
from headclip.memory import available_memory

CACHE = 4 << 20  # bytes of hidden values of an MLP that a core keeps near; more images a pass only make it slower
MOST_IMAGES = 64
ACCELERATOR_PATCHES = 32_000  # patches that keep an accelerator busy
MEMORY_SHARE = 0.5  # of what is free; the rest is for maps, images on their way, and errors of the estimate
SMALL_TOWER = 50_000_000  # parameters up to which one pass keeps several cores of a CPU badly busy
MOST_PASSES = 8


def choose_batch_size(config: VisionConfig, patches: int, device: torch.device, dtype: torch.dtype) -> int:
    """Images a pass: as many as the device gains from, and as its free memory can hold.

    On a CPU, as many as leave the hidden values of an MLP in the cache: four of the embedded model's, one of
    ViT-L/14@336 at 518 px. Beyond, a pass takes longer for each image (docs/speed.md).

    patches: of an image, at the size at which it enters the tower.
    """
    if device.type == "cpu":
        hidden = max(1, patches) * int(config.width * config.mlp_ratio) * dtype.itemsize
        wanted = CACHE // hidden
        free = available_memory()
    else:
        wanted = ACCELERATOR_PATCHES // max(1, patches)
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    if free is not None:
        wanted = min(wanted, int(free * MEMORY_SHARE) // pass_bytes(config, patches, dtype))
    return max(1, min(MOST_IMAGES, wanted))


def pass_bytes(config: VisionConfig, patches: int, dtype: torch.dtype) -> int:
    """Bytes that one image takes on its way through a tower, at most: a generous count.

    Tokens of both streams, their norms, queries, keys and values, head outputs twice, and the MLP's hidden values
    before and after the activation; and one map of scores for each head where attention is not fused.
    """
    tokens = patches + 1
    values = tokens * (10 * config.width + 2 * int(config.width * config.mlp_ratio)) + tokens * tokens * config.heads
    return values * max(dtype.itemsize, 2)


def choose_passes(parameters: int, device: torch.device) -> int:
    """How many passes should run side by side, each in a thread of its own.

    A small tower has little work between two points at which all threads of an operation wait for each other, and
    threads that decode and write get in between. So there each thread of torch has a pass of its own.
    """
    if device.type != "cpu" or parameters >= SMALL_TOWER:
        return 1
    return max(1, min(MOST_PASSES, torch.get_num_threads()))


@contextmanager
def divided_threads(passes: int) -> Iterator[None]:
    """Give each of `passes` threads that are started inside its share of torch's threads."""
    threads = torch.get_num_threads()
    if passes == 1:
        yield
        return
    torch.set_num_threads(max(1, threads // passes))  # of this thread, and the first value of new ones
    try:
        yield
    finally:
        torch.set_num_threads(threads)
