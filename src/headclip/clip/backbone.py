"""A frozen CLIP as one object: configuration, towers, tokenizer, content hash."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headclip.clip.config import ClipConfig
from headclip.clip.text import TextTower
from headclip.clip.vision import VisionTower
from headclip.errors import BackboneError

if TYPE_CHECKING:
    from headclip.clip.tokenizer import ClipTokenizer


class Backbone(nn.Module):
    """Both towers of a CLIP model. `text` is None for a vision-only backbone.

    `name` says where it came from; `hash` identifies the weights, whatever precision they run in; `rounded` says that
    the vision tower has lost digits since they were read.
    """

    def __init__(self, config: ClipConfig, tokenizer: ClipTokenizer | None = None, name: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.name = name or config.name
        self.tokenizer = tokenizer
        self.content_hash: str | None = None
        self.rounded = False
        self.vision = VisionTower(config.vision, config.embed_dim)
        self.text = None if config.text is None else TextTower(config.text, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(2.6593))  # log(1 / 0.07)

    @property
    def device(self) -> torch.device:
        return self.vision.projection.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vision.projection.dtype

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the weights: as set by the loader, else of the tensors when this was first asked."""
        return self.content_hash or self._computed_hash

    @cached_property
    def _computed_hash(self) -> str:
        return hash_tensors(self.state_dict())

    def freeze(self) -> Backbone:
        """Stop every parameter from learning; returns itself."""
        return self.requires_grad_(False).eval()

    def require_text(self) -> TextTower:
        """The text tower, or a BackboneError that says that there is none."""
        if self.text is None:
            raise BackboneError(
                f"backbone '{self.name}' has no text tower, and this method reads prompts; "
                "choose a backbone with both towers"
            )
        return self.text

    def require_tokenizer(self) -> ClipTokenizer:
        """The tokenizer, or a BackboneError that says that there is none."""
        if self.tokenizer is None:
            raise BackboneError(f"backbone '{self.name}' has no tokenizer, and prompts need one")
        return self.tokenizer

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences -> unit vectors (T, E), float32.

        Raises:
            BackboneError: the backbone has no text tower or no tokenizer.
            InputError: a sentence is too long for the text tower.
        """
        text = self.require_text()
        ids = self.require_tokenizer()(texts).to(self.device)
        return nn.functional.normalize(text(ids).float(), dim=-1)


def hash_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256 (hex) over names, shapes and float32 values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()
