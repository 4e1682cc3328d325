"""Tokens as rows of bytes, and back: exact, in half precision, or in 8 bits with a scale for every token and head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headclip.errors import InputError

FeatureDtype = Literal["fp16", "int8"]
Row = NDArray[np.uint8]

LARGEST = 65504.0  # of half precision
SMALLEST = 2.0**-14  # that half precision still keeps in full
ROUND_UP = 1.001  # more than half precision can lose, so that a kept scale is never below the true one


@dataclass(frozen=True)
class Plane:
    """One tensor that is kept of each image: (tokens, width).

    name: what it is, unique among all that are kept at one image size. code: how it is written; "fp32" for what is
    small and decides a score by itself, as the class token does. group: channels with a common scale, of one head.
    """

    name: str
    tokens: int
    width: int
    group: int
    code: Literal["fp32", "fp16", "int8"]

    @property
    def bytes(self) -> int:
        """Bytes of one image's row."""
        values = self.tokens * self.width
        scales = 2 * values // self.group if self.code == "int8" else 0
        return values * {"fp32": 4, "fp16": 2, "int8": 1}[self.code] + scales

    def encode(self, values: Tensor) -> list[Row]:
        """(B, tokens, width) -> B rows of `bytes` bytes.

        Raises:
            InputError: a value is beyond half precision.
        """
        values = values.detach().to("cpu", torch.float32)
        if self.code != "fp32" and values.abs().max() > LARGEST / ROUND_UP:
            raise InputError(
                f"features ({self.name}) reach {float(values.abs().max()):.0f}, more than half precision can hold; "
                "train without kept features"
            )
        if self.code == "int8":
            return [self._encode_int8(image) for image in values]
        wanted = values.to(torch.float16 if self.code == "fp16" else torch.float32).contiguous()
        return [image.reshape(-1).numpy().view(np.uint8) for image in wanted]

    def _encode_int8(self, image: Tensor) -> Row:
        grouped = image.unflatten(-1, (-1, self.group))  # (tokens, heads, group)
        scale = (grouped.abs().amax(dim=-1) * ROUND_UP).clamp(min=SMALLEST).half()  # (tokens, heads)
        numbers = (grouped / scale.float()[..., None] * 127).round().to(torch.int8)
        parts = [numbers.reshape(-1).numpy(), scale.reshape(-1).numpy()]
        return np.concatenate([part.view(np.uint8) for part in parts])

    def decode(self, rows: Sequence[Row], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Rows of B images -> (B, tokens, width)."""
        found = torch.empty(len(rows), self.tokens, self.width, device=device, dtype=dtype)
        for image, row in zip(found, rows, strict=True):
            if self.code == "int8":
                self._decode_int8(torch.from_numpy(row).to(device), image)
            else:
                kept = torch.float16 if self.code == "fp16" else torch.float32
                image.copy_(torch.from_numpy(row).to(device).view(kept).view(self.tokens, self.width))
        return found

    def _decode_int8(self, row: Tensor, out: Tensor) -> None:
        count, heads = self.tokens * self.width, self.width // self.group
        numbers = row[:count].view(torch.int8).view(self.tokens, heads, self.group)
        scale = row[count:].clone().view(torch.float16).float().view(self.tokens, heads, 1) / 127
        # 8-bit numbers are exact in any float; the product is rounded once, to the dtype of `out`
        torch.mul(numbers.to(out.dtype), scale.to(out.dtype), out=out.view(self.tokens, heads, self.group))
