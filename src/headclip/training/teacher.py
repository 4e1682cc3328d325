"""A teacher for pretraining: middle blocks of a frozen DINOv2, whose patch tokens the small tower learns to predict.

Its weights are read from a Hugging Face folder and are never written into what pretraining makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.errors import InputError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which DINOv2 was trained with


@dataclass
class TeacherTokens:
    """patches (B, rows * columns, C) and cls (B, C), every channel standardised; C = width x number of blocks."""

    patches: Tensor
    cls: Tensor


class Teacher:
    """Standardised tokens of chosen blocks (counted from 1) on the patch grid of the student.

    Args:
        folder: `config.json` and `model.safetensors` of a Dinov2Model.
        blocks: which blocks to read; later ones are not computed.
        dtype: arithmetic of the teacher.

    Raises:
        InputError: `transformers` is not installed, the folder holds no DINOv2, or it has fewer blocks than asked for.
    """

    def __init__(self, folder: Path, blocks: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> None:
        try:
            from transformers import Dinov2Config
        except ImportError as error:
            raise InputError("a teacher is read with transformers: pip install transformers") from error
        if not (folder / "config.json").is_file():
            raise InputError(f"{folder} holds no config.json; a teacher is a DINOv2 in Hugging Face layout")
        config = Dinov2Config.from_pretrained(folder)
        if not 1 <= min(blocks) <= max(blocks) <= config.num_hidden_layers:
            raise InputError(f"the teacher has {config.num_hidden_layers} blocks; asked for {blocks}")
        config.num_hidden_layers = max(blocks)
        self.blocks, self.patch, self.dtype = blocks, int(str(config.patch_size)), dtype
        self.model = self._load(folder, config)
        self.model.to(dtype).eval().requires_grad_(False)
        self.width = int(config.hidden_size) * len(blocks)
        self.centre: Tensor | None = None  # (C,) of patches, from `standardise`
        self.spread: Tensor | None = None

    def _load(self, folder: Path, config: Any) -> nn.Module:
        """The model without the blocks that are not kept; transformers would warn of each of them."""
        from transformers import Dinov2Model
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            loaded: Any = Dinov2Model.from_pretrained(folder, config=config, output_loading_info=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"cannot read a DINOv2 from {folder}: {error}") from None
        model, found = loaded
        if missing := sorted(set(found["missing_keys"]) - {"embeddings.mask_token"}):
            raise InputError(f"{folder} lacks {len(missing)} tensors of a DINOv2, {missing[0]} among them")
        return cast(nn.Module, model)

    def to(self, device: torch.device) -> Teacher:
        self.model.to(device)
        return self

    @torch.no_grad()
    def raw(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 3, H, W) uint8 -> (B, 1 + rows * columns, C) float32, CLS first, one token for each student patch."""
        device = next(self.model.parameters()).device
        size = (grid[0] * self.patch, grid[1] * self.patch)
        pixels = F.interpolate(images.to(device).float() / 255, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
        output = self.model(((pixels - mean) / std).to(self.dtype), output_hidden_states=True)
        return torch.cat([output.hidden_states[block].float() for block in self.blocks], dim=-1)

    def standardise(self, images: Tensor, grid: tuple[int, int]) -> None:
        """Fix centre and spread of every channel from a sample of images (B, 3, H, W) uint8."""
        flat = torch.cat([self.raw(part, grid)[:, 1:].flatten(0, 1) for part in images.split(32)])
        self.centre, self.spread = flat.mean(0), flat.std(0).clamp(min=1e-6)

    def __call__(self, images: Tensor, grid: tuple[int, int]) -> TeacherTokens:
        """Tokens of images (B, 3, H, W) uint8; `standardise` comes first."""
        assert self.centre is not None
        assert self.spread is not None
        tokens = (self.raw(images, grid) - self.centre) / self.spread
        return TeacherTokens(tokens[:, 1:], tokens[:, 0])


class Student(nn.Module):
    """Linear heads that predict the teacher from three places of the small tower; thrown away after pretraining.

    Args:
        width: of the student. outputs: channels of the teacher.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.local = nn.Linear(width, outputs)  # from the local stream, after ln_post
        self.late = nn.Linear(width, outputs)  # from the global stream's patches that enter the last layer
        self.cls = nn.Linear(width, outputs)
        for head in (self.local, self.late, self.cls):  # random heads would push the tower about at first
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, local: Tensor, late: Tensor, cls: Tensor, teacher: TeacherTokens) -> Tensor:
        """Mean squared error over the three; 1 means that nothing of the teacher's variance is explained."""
        patches, whole = teacher.patches.to(local.device), teacher.cls.to(local.device)
        errors = (
            F.mse_loss(self.local(local).float(), patches),
            F.mse_loss(self.late(late).float(), patches),
            F.mse_loss(self.cls(cls).float(), whole),
        )
        return 0.4 * errors[0] + 0.4 * errors[1] + 0.2 * errors[2]
