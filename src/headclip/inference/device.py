"""Which device and precision to use."""

from __future__ import annotations

from typing import Literal

import torch

from headclip.clip.backbone import Backbone
from headclip.clip.hardware import has_fast_bf16
from headclip.errors import InputError

Precision = Literal["fp32", "bf16"]
LARGE_TOWER = 50_000_000  # parameters from which bf16 pays on a CPU that has it


def choose_device(name: str) -> torch.device:
    """ "auto", "cpu", "cuda" or "cuda:1" -> device.

    Raises:
        InputError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}'; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is available to this PyTorch; use --device cpu, or see `headclip doctor`")
    return device


def choose_precision(
    name: Precision | Literal["auto"], device: torch.device, backbone: Backbone | None = None
) -> torch.dtype:
    """ "auto" takes bf16 on CUDA devices that have it, and on CPUs that have it for towers worth it.

    Raises:
        InputError: unknown name.
    """
    if name == "fp32":
        return torch.float32
    if name == "bf16":
        return torch.bfloat16
    if name != "auto":
        raise InputError(f"unknown precision '{name}'; use auto, fp32 or bf16")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    size = sum(p.numel() for p in backbone.vision.parameters()) if backbone is not None else 0
    return torch.bfloat16 if device.type == "cpu" and has_fast_bf16(device) and size >= LARGE_TOWER else torch.float32


def precision_name(dtype: torch.dtype) -> Precision:
    return "bf16" if dtype == torch.bfloat16 else "fp32"
