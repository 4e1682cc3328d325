"""The detector: images in, predictions out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from headclip.clip.backbone import Backbone
from headclip.clip.preprocess import input_size, normalise, resize
from headclip.clip.weights import EMBEDDED, load_backbone
from headclip.data.decode import as_rgb
from headclip.errors import ImageError, InputError
from headclip.files import file_hash
from headclip.inference.device import Precision, choose_device, choose_precision, precision_name
from headclip.inference.prediction import Prediction
from headclip.methods import create_method
from headclip.methods.base import Method
from headclip.methods.checkpoint import CheckpointInfo, load_checkpoint

EMBEDDED_CHECKPOINT = "headclip.safetensors"
ImageLike = str | Path | Image.Image | np.ndarray


class Detector:
    """Scores images with one method on one backbone.

    Args:
        backbone: a name, hub id, folder or file as in `load_backbone`, or a loaded backbone.
        checkpoint: what training learnt; None takes the one that ships with the embedded model, and leaves any
            other backbone unadapted (with a warning).
        device: "auto" takes a CUDA device where there is one.
        precision: "auto" takes bf16 where the device has it and the tower is large enough to gain from it.
        image_size: side in pixels at which images enter the tower; None takes the method's own.
        batch_size: images a pass; None chooses by the number of patches.
        method: method to use without a checkpoint.

    Raises:
        BackboneError, CheckpointError, InputError: each says what to do.

    Example:
        >>> import numpy as np
        >>> detector = Detector(device="cpu")
        >>> prediction = detector.predict([np.zeros((64, 96, 3), np.uint8)])[0]
        >>> prediction.anomaly_map.shape, 0 <= prediction.score <= 1
        ((64, 96), True)
    """

    def __init__(
        self,
        backbone: str | Path | Backbone = "embedded",
        checkpoint: str | Path | None = None,
        *,
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        image_size: int | None = None,
        batch_size: int | None = None,
        method: str = "headclip",
    ) -> None:
        self.device = choose_device(device)
        loaded = backbone if isinstance(backbone, Backbone) else load_backbone(str(backbone))
        self.backbone = loaded.to(self.device).freeze()
        self.checkpoint = Path(checkpoint) if checkpoint else default_checkpoint(self.backbone)
        self.info: CheckpointInfo | None = None
        if self.checkpoint is None:
            warnings.warn(
                f"no checkpoint: {method} runs on '{self.backbone.name}' with untrained prompts and head weights. "
                "Train some with `headclip train --data synthetic --backbone ... --out FILE`",
                stacklevel=2,
            )
            self.method: Method = create_method(method, self.backbone)
        else:
            self.method, self.info = load_checkpoint(self.checkpoint, self.backbone)
        self.method.to(self.device).eval()
        with torch.no_grad():
            self.text = self.method.text_vectors()[0]
        dtype = choose_precision(precision, self.device, self.backbone)
        self.precision = precision_name(dtype)
        self.backbone.to(dtype)
        self.patch = self.backbone.config.vision.patch_size
        self.image_size = self._check_size(image_size or self.method.image_size)
        self.keep_aspect = self.backbone.config.keep_aspect
        self.batch_size = batch_size or default_batch_size((self.image_size // self.patch) ** 2, self.device)
        if self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size}: at least 1 is needed")

    def _check_size(self, image_size: int) -> int:
        if not self.patch <= image_size <= 4096:
            raise InputError(f"image size {image_size}: choose {self.patch} (one patch) to 4096 px")
        return image_size

    def predict(self, images: Sequence[ImageLike] | ImageLike) -> list[Prediction]:
        """Paths, PIL images or (H, W), (H, W, 3), (H, W, 4) arrays -> one prediction each, in order.

        Raises:
            ImageError: an image cannot be read; `headclip predict` goes on with the others instead.
        """
        single = isinstance(images, str | Path | Image.Image | np.ndarray)
        given: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
        arrays = [read(image) for image in given]
        paths = [str(image) if isinstance(image, str | Path) else None for image in given]
        found = self.predict_arrays(arrays)
        return [replace(prediction, path=path) for prediction, path in zip(found, paths, strict=True)]

    def predict_arrays(self, images: Sequence[np.ndarray]) -> list[Prediction]:
        """Decoded images, (H, W, 3) uint8 -> one prediction each, in order; equal sizes share a batch."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault((image.shape[0], image.shape[1]), []).append(index)
        results: list[Prediction | None] = [None] * len(images)
        for output, indices in groups.items():
            for start in range(0, len(indices), self.batch_size):
                chosen = indices[start : start + self.batch_size]
                for index, prediction in zip(chosen, self._batch([images[i] for i in chosen], output), strict=True):
                    results[index] = prediction
        return [result for result in results if result is not None]

    @torch.inference_mode()
    def _batch(self, images: list[np.ndarray], output: tuple[int, int]) -> list[Prediction]:
        size = input_size(*output, image_size=self.image_size, patch=self.patch, keep_aspect=self.keep_aspect)
        pixels = self.pixels(images, size)
        scores = self.method.score(self.method.tokens(pixels), self.text, size, output)
        maps = (scores.anomaly_map / self.method.map_maximum).clamp(0, 1).float().cpu().numpy()
        parts = torch.stack([scores.score, scores.global_score, scores.local_score]).clamp(0, 1).float().cpu().tolist()
        return [Prediction(j, g, loc, maps[i]) for i, (j, g, loc) in enumerate(zip(*parts, strict=True))]

    def pixels(self, images: Sequence[np.ndarray], size: tuple[int, int]) -> Tensor:
        """(H, W, 3) uint8 arrays -> what enters the tower, (B, 3, *size)."""
        config = self.backbone.config
        stacked = torch.stack([resize(image, size) for image in images]).to(self.device)
        return normalise(stacked, config.mean, config.std, self.backbone.dtype)

    def describe(self) -> dict[str, Any]:
        """Facts that tell one run from another, for `run.json`."""
        return {
            "method": self.method.name,
            "config": self.method.config_dict(),
            "backbone": self.backbone.name,
            "backbone_hash": self.backbone.hash,
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "checkpoint_hash": file_hash(self.checkpoint) if self.checkpoint else None,
            "checkpoint_data": self.info.data if self.info else None,
            "calibration": self.info.calibration if self.info else None,
            "image_size": self.image_size,
            "keep_aspect": self.keep_aspect,
            "precision": self.precision,
        }


def read(image: ImageLike) -> np.ndarray:
    """Any image that `Detector.predict` takes -> (H, W, 3) uint8; an error names the file."""
    try:
        return as_rgb(image)
    except ImageError as error:
        name = str(image) if isinstance(image, str | Path) else "an image"
        raise ImageError(f"{name}: {error}") from error


def default_checkpoint(backbone: Backbone) -> Path | None:
    """The checkpoint that ships with the package, if this is the backbone that ships with it."""
    path = EMBEDDED / EMBEDDED_CHECKPOINT
    return path if backbone.name == "embedded" and path.is_file() else None


def default_batch_size(patches: int, device: torch.device) -> int:
    """Some 8,000 patches a pass on a CPU, where larger batches gain nothing, and 32,000 on an accelerator."""
    budget = 8_000 if device.type == "cpu" else 32_000
    return max(1, min(64, budget // max(1, patches)))
