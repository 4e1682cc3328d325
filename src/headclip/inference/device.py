"""Which device and precision to use."""

from __future__ import annotations

from typing import Literal

import torch

from headclip.clip.backbone import Backbone
from headclip.clip.hardware import has_fast_bf16
from headclip.clip.packed import is_packed, unpack_tower
from headclip.clip.quantise import check_int8, is_quantised, quantise_tower
from headclip.errors import InputError

Precision = Literal["fp32", "bf16", "int8"]
LARGE_TOWER = 50_000_000  # parameters from which bf16 pays on a CPU that has it


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1" -> device.

    Raises:
        InputError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = parse_device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available to this PyTorch; use --device cpu, or see `headclip doctor`")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"there is no device '{name}': {torch.cuda.device_count()} CUDA devices, counted from cuda:0")
    return device


def parse_device(name: str) -> torch.device:
    """ "cpu", "cuda" or "cuda:1" -> device, there or not.

    Raises:
        InputError: none that headclip runs on.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"unknown device '{name}'; use auto, cpu or cuda")
    return device


def choose_precision(
    name: Precision | Literal["auto"], device: torch.device, backbone: Backbone | None = None
) -> torch.dtype:
    """ "auto" takes bf16 on CUDA devices that have it, and on CPUs that have it for towers worth it.

    For "int8", the dtype of what is not quantised: the one that "auto" takes.

    Raises:
        InputError: unknown name, or int8 where it does not run.
    """
    if name == "int8":
        check_int8(device)
        name = "auto"
    if name == "fp32":
        return torch.float32
    if name == "bf16":
        return torch.bfloat16
    if name != "auto":
        raise InputError(f"unknown precision '{name}'; use auto, fp32, bf16 or int8")
    if device.type == "cuda":
        return torch.bfloat16 if has_fast_bf16(device) else torch.float32
    size = backbone.vision.size if backbone is not None else 0
    return torch.bfloat16 if device.type == "cpu" and has_fast_bf16(device) and size >= LARGE_TOWER else torch.float32


def precision_name(dtype: torch.dtype) -> Precision:
    return "bf16" if dtype == torch.bfloat16 else "fp32"


def set_precision(backbone: Backbone, name: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Bring the vision tower, on `device` already, to a precision, in place; returns the one it has now.

    The text tower keeps its own: it runs once, and others may share it. "auto" leaves a tower that has been
    rounded already as it is.

    Raises:
        InputError: unknown name; int8 where it does not run; floats of a tower whose exact weights are gone.
    """
    if is_quantised(backbone.vision):
        if name not in ("int8", "auto"):
            raise InputError(f"this loaded backbone is in int8 already; load it again to use it in {name}")
        return "int8"
    dtype = choose_precision(name, device, backbone)
    if backbone.rounded:
        if name not in ("bf16", "auto"):
            raise InputError(f"this loaded backbone is in bf16 already; load it again to use it in {name}")
        dtype = torch.bfloat16
    if name != "int8" and is_packed(backbone.vision) and (backbone.device, backbone.dtype) == (device, dtype):
        return precision_name(dtype)
    rounds = torch.promote_types(backbone.dtype, dtype) != dtype
    if rounds or name == "int8":
        _ = backbone.hash  # of the exact weights, which are about to go
    unpack_tower(backbone.vision).to(device)
    if name != "int8":
        backbone.rounded = backbone.rounded or rounds
        backbone.vision.to(dtype)
        return precision_name(dtype)
    quantise_tower(backbone.vision, dtype)
    return "int8"
