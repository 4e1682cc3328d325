"""`torch.compile` of the vision tower, where somebody asks for it."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch

from headclip.clip.quantise import is_quantised
from headclip.clip.vision import VisionTower
from headclip.errors import InputError

_COMPILERS = ("g++", "clang++", "c++")


def compile_tower(tower: VisionTower) -> None:
    """Let `torch.compile` make the tower's forward pass quicker, in place; the first pass of each image size compiles.

    Results agree with the plain tower to rounding. What reads the tower's parts (shared passes, training) is as before.

    Raises:
        InputError: there is nothing to compile with, or the tower is in 8 bits.
    """
    if is_quantised(tower):
        raise InputError("--compile and --precision int8 exclude each other; leave one of them out")
    check_compiler(tower.projection.device)
    tower.compile()


def check_compiler(device: torch.device) -> None:
    """Raise InputError where `torch.compile` has nothing to compile with: C++ for a CPU, Triton for a GPU."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise InputError("--compile on a GPU needs the package triton; install it, or leave --compile out")
        return
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ((named,) if named else _COMPILERS)):
        missing = f"CXX names {named}, which is not there" if named else f"none of {', '.join(_COMPILERS)} is there"
        raise InputError(
            f"--compile needs a C++ compiler, and {missing}; install one (Debian: apt install g++), name yours in "
            "the variable CXX, or leave --compile out"
        )
