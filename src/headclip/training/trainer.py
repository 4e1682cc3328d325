"""Training of what a method may learn, on a frozen backbone (HeadCLIP 3.5)."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headclip.clip.preprocess import normalise
from headclip.clip.vision import VisionTokens
from headclip.errors import DivergedError, InputError
from headclip.locks import sole_writer
from headclip.methods.base import TrainableMethod, pick_text
from headclip.methods.checkpoint import CheckpointInfo, save_checkpoint
from headclip.same_settings import differing
from headclip.training.batches import Batch, SeenItem, pack_items, remember, seen_batch, unpack_items
from headclip.training.distributed import ALONE, Objective, Ranks, group_errors
from headclip.training.features import FeatureStore, image_key, kept_or_computed, kept_request
from headclip.training.files import append_json_line, changes, load_torch, reading_state, save_torch, trim_log
from headclip.training.losses import LossParts, joint_loss
from headclip.training.reading import read_batches
from headclip.training.sets import TrainingSet
from headclip.training.train_config import TrainConfig


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


class Trainer:
    """Trains a method's own parameters; the backbone's stay as they are, to the bit.

    Every epoch goes through the images in an order that the seed and the epoch fix, so that a killed run, resumed,
    ends with the same parameters as one that was not.

    Several processes (`ranks`) share each batch and end with the parameters of a single one, to rounding; a run may be
    resumed by another number of them. What is kept of images in a folder, all of them read.

    earlier: what the method had been trained on before, the `data` of its checkpoint, which the new one goes on to say.
    """

    def __init__(
        self,
        method: TrainableMethod,
        data: TrainingSet,
        config: TrainConfig,
        ranks: Ranks = ALONE,
        earlier: Mapping[str, Any] | None = None,
    ) -> None:
        self.method, self.data, self.config, self.ranks = method, data, config, ranks
        self.earlier = dict(earlier or {})
        if config.batch_size < ranks.count:
            raise InputError(
                f"{ranks.count} processes cannot share batches of {config.batch_size} images; "
                "start fewer, or raise the batch size"
            )
        method.backbone.freeze()
        groups: list[dict[str, Any]] = []
        for name, parameters in learning(method, config.only).items():
            rate = config.head_rate if name == "heads" and config.head_rate is not None else config.rate
            groups.append({"params": parameters, "lr": rate})
        self.optimiser = method.optimiser(groups, config.rate, config.betas)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]  # at the beginning
        self.local_weight = method.local_weight if config.local_weight is None else config.local_weight
        self.store = self._open_store() if config.keep_features else None
        self.items: dict[int, SeenItem] = {}
        self.epoch, self.batch, self.sums = 1, 0, EpochSums()
        self._known = 0  # images of which every process knows
        self.objective = ranks.parallel(Objective(method.trainable().values(), self.losses))

    def _open_store(self) -> FeatureStore | None:
        """Where features are kept; None, with a word, where there is no room for those of all images."""
        place = self.config.keep_features
        if place in (True, "memory") and self.ranks.count > 1:
            raise InputError(
                "several processes cannot read features in the memory of one; keep them in a folder "
                "(--features-in FOLDER; one below /dev/shm lies in memory)"
            )
        kept_request(self.method)  # refuses before the first image is made
        folder = None if place in (True, "memory") else Path(place)  # type: ignore[arg-type]
        store = FeatureStore(self.method.backbone, self.image_size, folder=folder, dtype=self.config.features_dtype)
        shortage = store.shortage(self.method, len(self.data)) or ""  # each machine asks its own disk
        found = [text.decode() for text in self.ranks.gather(shortage.encode()) if text]
        if not found:
            return store
        if self.ranks.leads:
            warnings.warn(f"{found[0]}; the tower runs in every epoch instead", stacklevel=3)
        return None

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the images as they enter the tower."""
        height, width = self.data[0].image.shape[-2:]
        return height, width

    @property
    def batches(self) -> int:
        return -(-len(self.data) // self.config.batch_size)

    def order(self, epoch: int) -> list[int]:
        """The order of the images in an epoch."""
        generator = torch.Generator().manual_seed(self.config.seed * 10_007 + epoch)
        return torch.randperm(len(self.data), generator=generator).tolist()

    def loader(self, workers: int) -> Generator[Batch]:
        """What is left of the current epoch: of each batch, the share of this process."""
        order, size = self.order(self.epoch), self.config.batch_size
        whole = [order[start : start + size] for start in range(self.batch * size, len(order), size)]
        shares = [self.ranks.share(numbers) for numbers in whole]
        # a process without an image takes part all the same, as DistributedDataParallel wants it: with a borrowed one
        chunks = [share or numbers[:1] for share, numbers in zip(shares, whole, strict=True)]
        for batch, numbers, share in zip(self._batches(chunks, workers), whole, shares, strict=True):
            yield replace(batch, whole=len(numbers), idle=not share)

    def _batches(self, chunks: list[list[int]], workers: int) -> Iterator[Batch]:
        """Batches of the images of these numbers."""
        if self.store is not None and len(self.items) == len(self.data):
            yield from (seen_batch([self.items[number] for number in numbers], numbers) for numbers in chunks)
            return
        yield from read_batches(self.data, chunks, workers)

    def images(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """Rows of a batch as images (n, 3, S, S) uint8, made or read again where the batch came without."""
        if batch.images is not None:
            return batch.images[list(rows)]
        return torch.stack([self.data[batch.numbers[row]].image for row in rows])

    def tokens(self, batch: Batch) -> VisionTokens:
        """Tokens of a batch: from the tower, or from kept features."""
        method, backbone = self.method, self.method.backbone
        if self.store is not None:
            keys = batch.keys or self.remember(batch)
            try:
                return kept_or_computed(self.store, method, keys, lambda rows: self.images(batch, rows))
            except OSError as error:
                warnings.warn(f"{error}; the tower runs in every epoch instead", stacklevel=2)
                self.store = None
        images = self.images(batch, range(len(batch.labels))).to(backbone.device)
        return method.tokens(normalise(images, backbone.config.mean, backbone.config.std, backbone.dtype))

    def remember(self, batch: Batch) -> list[str]:
        """Keep what later epochs need beside the features; returns the images' keys."""
        assert batch.images is not None
        keys = [image_key(image) for image in batch.images]
        self.items.update(remember(batch, keys))
        return keys

    def exchange(self) -> None:
        """Let every process know what the others have found out about the images that they saw."""
        if self.ranks.count == 1 or not self.config.keep_features or self._known == len(self.data):
            return
        for content in self.ranks.gather(pack_items(self.items)):
            self.items.update(unpack_items(content))
        self._known = len(self.items)

    def losses(self, batch: Batch) -> LossParts:
        """Equation 11 on one batch; where others have parts of it, what this part adds to that of the whole."""
        method, device = self.method, self.method.backbone.device
        size = (batch.masks.shape[-2], batch.masks.shape[-1])
        text = pick_text(method.text_vectors(batch.categories if method.uses_category else None), len(batch.labels))
        tokens = self.tokens(batch)
        marked = batch.has_mask.to(device)
        maps = [probabilities[marked] for probabilities in method.pixel_maps(tokens, text, size)]
        logits = method.image_logits(tokens, text)
        labels, masks = batch.labels.to(device), batch.masks.to(device)[marked]
        kind = method.image_loss
        config = self.config
        ours = torch.tensor(0 if batch.idle else len(masks))
        all_marked = float(self.ranks.sum(ours))
        shares = (batch.share, float(ours) / all_marked if all_marked else 1.0)
        return joint_loss(
            logits, maps, labels, masks, self.local_weight, config.tap_mean, kind, config.pixel_loss, shares
        )

    def step(self, batch: Batch) -> LossParts:
        """One step of the optimiser; returns the losses of the whole batch."""
        parts = self.objective(batch)
        losses = LossParts(*self.ranks.sum(torch.stack(parts)).unbind()) if self.ranks.count > 1 else LossParts(*parts)
        if not torch.isfinite(losses.total):
            raise DivergedError(
                f"the loss is {float(losses.total.detach())} in epoch {self.epoch}; lower the learning rate or use fp32"
            )
        self.optimiser.zero_grad()
        with group_errors():
            (parts[0] * self.ranks.count).backward()  # gradients are averaged, and have to be added up
        self._set_rates()
        self.optimiser.step()
        return losses

    def _set_rates(self) -> None:
        """Learning rates as the schedule has them at this step."""
        if self.config.schedule == "constant":
            return
        done = (self.epoch - 1 + self.batch / self.batches) / self.config.epochs
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * (0.5 + 0.5 * math.cos(math.pi * done))

    def settings(self) -> dict[str, Any]:
        """What must be equal for a run to be resumed."""
        facts = {
            "method": self.method.name,
            "method_config": self.method.config_dict(),
            "training": self.config.facts(),
            "backbone_hash": self.method.backbone.hash,
            "data": self.data.describe(),
            "image_size": self.image_size,
        }
        return json.loads(json.dumps(facts))

    def described(self) -> dict[str, Any]:
        """What a checkpoint says of the images: of this run, and of those before it."""
        return self.data.describe() | ({"earlier": self.earlier} if self.earlier else {})

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
        state = load_torch(path)
        with reading_state(path):
            self._restore(state, path)

    def _restore(self, state: dict[str, Any], path: Path) -> None:
        ours = self.settings()
        theirs = {"image_size": ours["image_size"], **state["settings"]}  # states of earlier versions do not say it,
        usual = json.loads(json.dumps(TrainConfig().facts()))  # nor what has become a setting since
        theirs["training"] = {**usual, **theirs["training"]}
        theirs["training"]["only"] = sorted(theirs["training"]["only"])
        other = sorted(key for key in ours if _differ(theirs.get(key), ours[key]))
        if other:
            changed = ", ".join(text for key in other for text in changes(key, theirs.get(key), ours[key]))
            raise InputError(
                f"{path} cannot be resumed: {', '.join(other)} differ from the run that wrote it "
                f"({changed}); give the same options, or start anew without --resume"
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
    ) -> CheckpointInfo | None:
        """Train to the last epoch and write the checkpoint `out`.

        Beside it appear `out`.log.jsonl (one line an epoch) and, until the end, `out`.state (to resume). Of several
        processes the first one writes; the others return None.
        """
        with sole_writer(out) if self.ranks.leads else nullcontext():
            return self._run(out, workers, save_seconds, progress)

    def _run(
        self, out: Path, workers: int, save_seconds: float, progress: Callable[[Progress], None] | None
    ) -> CheckpointInfo | None:
        log, state, writes = log_path(out), state_path(out), self.ranks.leads
        if writes:
            trim_log(log, "epoch", self.epoch - 1)
        saved = time.monotonic()
        while self.epoch <= self.config.epochs:
            begun = time.monotonic()
            with closing(self.loader(workers)) as batches:
                for batch in batches:
                    losses = self.step(batch)
                    self.batch += 1
                    self.sums.add(losses)
                    if progress is not None:
                        progress(Progress(self.epoch, self.batch, self.batches, losses))
                    if writes and time.monotonic() - saved > save_seconds:
                        save_torch(self.state(), state)
                        saved = time.monotonic()
            self.exchange()
            entry = {"epoch": self.epoch, **self.sums.means(), "seconds": round(time.monotonic() - begun, 1)}
            self.epoch, self.batch, self.sums = self.epoch + 1, 0, EpochSums()
            if writes:
                append_json_line(log, entry)
                save_torch(self.state(), state)
        if not writes:
            return None
        training = self.config.facts() | {"image_size": list(self.image_size)}
        info = save_checkpoint(out, self.method, training=training, data=self.described())
        state.unlink(missing_ok=True)
        return info


def learning(method: TrainableMethod, only: Sequence[str]) -> dict[str, list[torch.nn.Parameter]]:
    """The groups of parameters that learn; those of others stay as they are.

    Raises:
        InputError: a group that the method does not have.
    """
    groups = method.parameter_groups()
    unknown = [name for name in only if name not in groups]
    if unknown:
        raise InputError(
            f"{method.name} with these settings learns {_parts(groups)}, and no {', '.join(unknown)}; name others"
            + (", or turn the part on, as --set refiner=16 does" if method.name == "headclip" else "")
        )
    for name, parameters in groups.items():
        for value in parameters:
            value.requires_grad_(not only or name in only)
    return {name: groups[name] for name in groups if not only or name in only}


def _differ(before: Any, now: Any) -> bool:
    return bool(differing(before, now)) if isinstance(before, dict) and isinstance(now, dict) else before != now


def _parts(groups: Mapping[str, Any]) -> str:
    return "all that it has as one part, called all" if list(groups) == ["all"] else ", ".join(groups)


def log_path(out: Path) -> Path:
    return out.with_name(out.name + ".log.jsonl")


def state_path(out: Path) -> Path:
    return out.with_name(out.name + ".state")
