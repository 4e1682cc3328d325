"""What the machine below does quickly, and memory that it may have back."""

from __future__ import annotations

import ctypes
from functools import cache

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in checks)


@cache
def fused_bf16_is_slow() -> bool:
    """Whether PyTorch's fused attention gains nothing from bf16 on this CPU: bf16 vectors, but no matrix tiles."""
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return has_fast_bf16(torch.device("cpu")) and not tiles


@cache
def has_packed_products() -> bool:
    """Whether oneDNN is there and the CPU one on which its products with packed weights are quicker: AVX-512."""
    wide = getattr(torch.cpu, "_is_avx512_supported", lambda: False)()
    operators = ("_reorder_linear_weight", "_linear_pointwise")
    return wide and torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in operators)


@cache
def has_fast_int8() -> bool:
    """Whether the CPU multiplies 8-bit integers quicker than floats (AVX-512 VNNI or matrix tiles)."""
    checks = ("_is_vnni_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in checks)


def give_back_memory() -> None:
    """Ask the C library to return what it holds free to the system; where it has no such call, nothing happens.

    glibc keeps freed blocks of some megabytes for later. Weights that were replaced one by one leave many of them.
    """
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
