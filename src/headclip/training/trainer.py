"""Training of what a method may learn, on a frozen backbone (HeadCLIP 3.5)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from headclip.clip.preprocess import normalise
from headclip.clip.vision import VisionTokens
from headclip.errors import InputError
from headclip.files import sole_writer
from headclip.methods.base import TrainableMethod, pick_text
from headclip.methods.checkpoint import CheckpointInfo, save_checkpoint
from headclip.training.features import FeatureStore, frozen_pass
from headclip.training.files import append_json_line, save_torch, trim_log
from headclip.training.losses import LossParts, joint_loss
from headclip.training.sets import TrainingItem, TrainingSet


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; the defaults are those of AnomalyCLIP's code base (A17, A18)."""

    epochs: int = 15
    batch_size: int = 8
    rate: float = 1e-3
    head_rate: float | None = None  # A17: learning rate of the head weights, None takes `rate`
    betas: tuple[float, float] = (0.5, 0.999)
    local_weight: float | None = None  # A18: None takes 4 for a single map, 1 with several taps
    tap_mean: bool = False  # A2
    seed: int = 111
    keep_features: bool = False  # run the tower once an image and keep its features in memory, in half precision

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.rate <= 0:
            raise InputError("training needs at least one epoch, one image a batch and a positive learning rate")


@dataclass
class Batch:
    """images (B, 3, S, S) uint8, masks (B, S, S) bool, labels (B,), has_mask (B,) bool, categories B names; numbers
    of the images in the set; kept: their features, where the tower has seen them before."""

    images: Tensor
    masks: Tensor
    labels: Tensor
    has_mask: Tensor
    categories: list[str]
    numbers: list[int] = field(default_factory=list)
    kept: VisionTokens | None = None


@dataclass
class Progress:
    """Where a run is: epoch from 1, batch of batches, and the losses of the last step."""

    epoch: int
    batch: int
    batches: int
    losses: LossParts


@dataclass
class EpochSums:
    """Running sums of the losses of one epoch, kept over a resume."""

    values: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("total", "local", "image"), 0.0))
    batches: int = 0

    def add(self, losses: LossParts) -> None:
        for name in self.values:
            self.values[name] += float(getattr(losses, name).detach())
        self.batches += 1

    def means(self) -> dict[str, float]:
        return {name: round(value / max(1, self.batches), 6) for name, value in self.values.items()}


def collate(items: list[TrainingItem]) -> Batch:
    return Batch(
        torch.stack([item.image for item in items]),
        torch.stack([item.mask for item in items]),
        torch.tensor([item.label for item in items]),
        torch.tensor([item.has_mask for item in items]),
        [item.category for item in items],
    )


class Trainer:
    """Trains a method's own parameters; the backbone's stay as they are, to the bit.

    Every epoch goes through the images in an order that the seed and the epoch fix, so that a killed run, resumed,
    ends with the same parameters as one that was not.
    """

    def __init__(self, method: TrainableMethod, data: TrainingSet, config: TrainConfig) -> None:
        self.method, self.data, self.config = method, data, config
        method.backbone.freeze()
        groups: list[dict[str, Any]] = []
        for name, parameters in method.parameter_groups().items():
            rate = config.head_rate if name == "heads" and config.head_rate is not None else config.rate
            groups.append({"params": parameters, "lr": rate})
        self.optimiser = method.optimiser(groups, config.rate, config.betas)
        self.local_weight = method.local_weight if config.local_weight is None else config.local_weight
        if config.keep_features and method.request.csa is None:
            raise InputError(f"{method.name} with these settings has nothing to keep; leave --keep-features out")
        self.store = FeatureStore() if config.keep_features else None
        self.items: dict[int, TrainingItem] = {}
        self.epoch, self.batch, self.sums = 1, 0, EpochSums()

    @property
    def batches(self) -> int:
        return -(-len(self.data) // self.config.batch_size)

    def order(self, epoch: int) -> list[int]:
        """The order of the images in an epoch."""
        generator = torch.Generator().manual_seed(self.config.seed * 10_007 + epoch)
        return torch.randperm(len(self.data), generator=generator).tolist()

    def loader(self, workers: int) -> Iterator[Batch]:
        """What is left of the current epoch."""
        order, size = self.order(self.epoch), self.config.batch_size
        chunks = [order[start : start + size] for start in range(self.batch * size, len(order), size)]
        if self.store is not None and self.store.has(order):
            yield from (self.kept_batch(numbers) for numbers in chunks)
            return
        loader: DataLoader[Any] = DataLoader(
            self.data,  # type: ignore[arg-type]
            batch_sampler=chunks,
            collate_fn=collate,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
        )
        for numbers, batch in zip(chunks, loader, strict=True):
            yield replace(batch, numbers=numbers)

    def kept_batch(self, numbers: list[int]) -> Batch:
        """A batch of images that the tower has seen."""
        assert self.store is not None
        backbone = self.method.backbone
        batch = collate([self.items[number] for number in numbers])
        return replace(batch, numbers=numbers, kept=self.store.get(numbers, backbone.device, backbone.dtype))

    def tokens(self, batch: Batch) -> VisionTokens:
        """Tokens of a batch: from the tower, or from kept features."""
        method, backbone = self.method, self.method.backbone
        if batch.kept is not None:
            return method.tokens_from_kept(batch.kept)
        pixels = normalise(batch.images.to(backbone.device), backbone.config.mean, backbone.config.std, backbone.dtype)
        if self.store is None:
            return method.tokens(pixels)
        kept = frozen_pass(backbone.vision, pixels, method.request)
        self.store.put(batch.numbers, kept)
        for row, number in enumerate(batch.numbers):
            label, marked = int(batch.labels[row]), bool(batch.has_mask[row])
            nothing = batch.images[row, :, :0, :0]
            self.items[number] = TrainingItem(nothing, batch.masks[row], label, marked, batch.categories[row])
        return method.tokens_from_kept(kept)

    def losses(self, batch: Batch) -> LossParts:
        """Equation 11 on one batch."""
        method, device = self.method, self.method.backbone.device
        size = (batch.masks.shape[-2], batch.masks.shape[-1])
        text = pick_text(method.text_vectors(batch.categories if method.uses_category else None), len(batch.labels))
        tokens = self.tokens(batch)
        marked = batch.has_mask.to(device)
        maps = [probabilities[marked] for probabilities in method.pixel_maps(tokens, text, size)]
        logits = method.image_logits(tokens, text)
        labels, masks = batch.labels.to(device), batch.masks.to(device)[marked]
        kind = method.image_loss
        return joint_loss(logits, maps, labels, masks, self.local_weight, self.config.tap_mean, kind)

    def step(self, batch: Batch) -> LossParts:
        losses = self.losses(batch)
        if not torch.isfinite(losses.total):
            raise InputError(
                f"the loss is {float(losses.total)} in epoch {self.epoch}; lower the learning rate or use fp32"
            )
        self.optimiser.zero_grad()
        losses.total.backward()
        self.optimiser.step()
        return losses

    def settings(self) -> dict[str, Any]:
        """What must be equal for a run to be resumed."""
        facts = {
            "method": self.method.name,
            "method_config": self.method.config_dict(),
            "training": asdict(self.config),
            "backbone_hash": self.method.backbone.hash,
            "data": self.data.describe(),
        }
        return json.loads(json.dumps(facts))

    def state(self) -> dict[str, Any]:
        return {
            "settings": self.settings(),
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": asdict(self.sums),
            "method": self.method.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Go on from a state file.

        Raises:
            InputError: it was written with other settings, data or backbone; the message names them.
        """
        state = torch.load(path, map_location=self.method.backbone.device, weights_only=True)
        ours = self.settings()
        other = sorted(key for key in ours if ours[key] != state["settings"].get(key))
        if other:
            raise InputError(
                f"{path} cannot be resumed: {', '.join(other)} differ from the run that wrote it; "
                "give the same options, or start anew without --resume"
            )
        self.method.load_state_dict(state["method"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.batch, self.sums = state["epoch"], state["batch"], EpochSums(**state["sums"])

    def run(
        self,
        out: Path,
        *,
        workers: int = 0,
        save_seconds: float = 60.0,
        progress: Callable[[Progress], None] | None = None,
    ) -> CheckpointInfo:
        """Train to the last epoch and write the checkpoint `out`.

        Beside it appear `out`.log.jsonl (one line an epoch) and, until the end, `out`.state (to resume).
        """
        with sole_writer(out):
            return self._run(out, workers, save_seconds, progress)

    def _run(
        self, out: Path, workers: int, save_seconds: float, progress: Callable[[Progress], None] | None
    ) -> CheckpointInfo:
        log, state = log_path(out), state_path(out)
        trim_log(log, "epoch", self.epoch - 1)
        saved = time.monotonic()
        while self.epoch <= self.config.epochs:
            begun = time.monotonic()
            for batch in self.loader(workers):
                losses = self.step(batch)
                self.batch += 1
                self.sums.add(losses)
                if progress is not None:
                    progress(Progress(self.epoch, self.batch, self.batches, losses))
                if time.monotonic() - saved > save_seconds:
                    save_torch(self.state(), state)
                    saved = time.monotonic()
            entry = {"epoch": self.epoch, **self.sums.means(), "seconds": round(time.monotonic() - begun, 1)}
            append_json_line(log, entry)
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, EpochSums()
            save_torch(self.state(), state)
        info = save_checkpoint(out, self.method, training=asdict(self.config), data=self.data.describe())
        state.unlink(missing_ok=True)
        return info


def log_path(out: Path) -> Path:
    return out.with_name(out.name + ".log.jsonl")


def state_path(out: Path) -> Path:
    return out.with_name(out.name + ".state")
