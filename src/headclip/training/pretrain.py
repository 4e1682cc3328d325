"""Pretraining of a small CLIP on rendered images: image-caption contrast plus patch-text alignment.

The patch-text term reads the local stream, the one that HeadCLIP reads, so that adaptation starts from aligned
local features. The run is cut into steps that depend on the seed alone, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig
from headclip.clip.initialise import initialise
from headclip.clip.vision import VisionRequest
from headclip.data.synthetic import render_batch
from headclip.data.synthetic.photographs import Photographs
from headclip.errors import InputError
from headclip.locks import sole_writer
from headclip.methods.headclip import proportional_csa
from headclip.training.files import append_json_line, load_torch, reading_state, save_torch, trim_log
from headclip.training.pretrain_config import PretrainConfig
from headclip.training.pretrain_data import SEED_STRIDE, PretrainBatch, RenderStream, Sizes, stream
from headclip.training.pretrain_losses import PretrainLosses, contrastive_loss, patch_loss, unit
from headclip.training.teacher import Student, Teacher
from headclip.training.uninterrupted import uninterrupted

TEACHER_SAMPLE = 128  # rendered images that fix the centre and spread of the teacher's channels
PATCH_RATE, OUTER_RATE = 0.1, 0.5  # shares of the learning rate: patch filters; all else outside the blocks
DETAIL_RATE = 5.0  # of the mixes of detail and rarity, which start from zero beside features that have long been learnt


def optimisers(backbone: Backbone, student: Student | None, config: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks and for the mixes of the detail filters, AdamW for all else; both at
    AdamW-sized rates.

    The patch filters move slowly: hundreds of pixels that rise and fall together enter each of them, so that a
    full-sized step would replace the features that every later layer has got used to.
    """
    named = dict(backbone.named_parameters())
    patch = named.pop("vision.patch_embedding.weight")
    mix = [named.pop(name) for name in [*named] if name.startswith("vision.detail.") and name.endswith("mix")]
    inner = [named.pop(name) for name, p in list(named.items()) if ".blocks." in name and p.dim() == 2]
    outer = [*named.values(), *(student.parameters() if student is not None else ())]
    groups = [
        {"params": [patch], "weight_decay": 0.0, "share": PATCH_RATE},
        {
            "params": [p for p in outer if p.dim() > 1],
            "weight_decay": config.weight_decay,
            "share": OUTER_RATE,
        },
        {"params": [p for p in outer if p.dim() <= 1], "weight_decay": 0.0, "share": OUTER_RATE},
    ]
    adamw = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), fused=True)
    muon = torch.optim.Muon(
        [{"params": inner, "share": 1.0}, *({"params": [one], "share": DETAIL_RATE} for one in mix)],
        lr=config.rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, adamw]


class Pretrainer:
    """Holds the model, its averaged copy and the optimiser; `run` trains to the end of the schedule.

    Args:
        backbone: the architecture, with its first values where `fresh` is false.
        teacher: a frozen DINOv2 whose tokens the tower also learns to predict, or None.
        photographs: real surfaces that stand in for rendered scenes now and then, or None.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: PretrainConfig,
        device: str = "cpu",
        *,
        teacher: Teacher | None = None,
        photographs: Photographs | None = None,
        fresh: bool = True,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        backbone = initialise(backbone, config.seed) if fresh else backbone.requires_grad_(True)
        self.backbone = backbone.to(self.device).train()
        self.teacher, self.photographs = teacher, photographs
        self.student: Student | None = None
        if teacher is not None:
            self._prepare_teacher(teacher)
        self.average = {name: value.detach().clone() for name, value in backbone.named_parameters()}
        self.optimisers = optimisers(backbone, self.student, config)
        self.step = 0
        layers = backbone.config.vision.layers
        self.request = VisionRequest(csa=proportional_csa(layers), taps=(proportional_csa(layers)[1],))

    def _prepare_teacher(self, teacher: Teacher) -> None:
        """Standardise its channels on rendered images of the run, and make the heads that predict it."""
        size = self.whole_patches(self.config.early_sizes[:1])[0]
        patch = self.backbone.config.vision.patch_size
        first = self.config.seed * SEED_STRIDE
        samples = render_batch(range(first, first + TEACHER_SAMPLE), size, photographs=self.photographs)
        images = torch.stack([sample.image for sample in samples])
        teacher.to(self.device).standardise(images, (size[0] // patch, size[1] // patch))
        torch.manual_seed(self.config.seed)
        self.student = Student(self.backbone.config.vision.width, teacher.width).to(self.device)

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        config = self.config
        if step < config.warmup:
            return config.rate * (step + 1) / config.warmup
        start = max(config.warmup, round((1 - config.decay_share) * config.steps))
        part = max(0, step - start) / max(1, config.steps - start)
        return config.rate * (config.final_rate + (1 - config.final_rate) * (1 + math.cos(math.pi * part)) / 2)

    def text_features(self, texts: list[str]) -> Tensor:
        """(T, E) unit vectors; only as many positions as the longest text needs are computed."""
        tokenizer, text = self.backbone.tokenizer, self.backbone.require_text()
        assert tokenizer is not None
        ids = tokenizer(texts, truncate=True)
        longest = int((ids != 0).sum(dim=1).max())
        return unit(text(ids[:, :longest].to(self.device)))

    def losses(self, batch: PretrainBatch) -> PretrainLosses:
        config, vision = self.backbone.config, self.backbone.vision
        mean = torch.tensor(config.mean, device=self.device)[:, None, None]
        std = torch.tensor(config.std, device=self.device)[:, None, None]
        pixels = (batch.images.to(self.device).float() / 255 - mean) / std
        flat = [sentence for pair in batch.pairs for sentence in pair]  # 2P sentences, shared by all images
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            late: list[Tensor] = []  # the last layer's normalised input
            hook = vision.blocks[-1].ln_1.register_forward_hook(lambda module, inputs, output: late.append(output))
            tokens = vision(pixels, self.request)
            hook.remove()
            local = vision.ln_post(tokens.local[self.request.taps[0]][:, 1:])
            cls = vision.ln_post(tokens.cls)
            images = unit(vision.project(cls, norm=False))
            patches = unit(vision.project(local, norm=False))
            teacher = self.teacher_loss(batch, local, late[0][:, 1:], cls, tokens.grid)
            texts = self.text_features(batch.captions + flat)
        captions, pairs = texts[: len(batch.captions)], texts[len(batch.captions) :].unflatten(0, (-1, 2))
        scale = self.backbone.logit_scale.exp()
        contrast = contrastive_loss(images, captions, scale, batch.captions)
        direction = (pairs[:, 1] - pairs[:, 0]) / self.config.temperature  # (P, E): difference of the two cosines
        labels = batch.labels.to(self.device, torch.float32)
        pair = F.binary_cross_entropy_with_logits(images @ direction.T, labels[:, None].expand(-1, len(direction)))
        logits = patches @ direction.T
        weights = self.config
        patch = patch_loss(logits, batch.masks.to(self.device), tokens.grid, weights.defect_weight, weights.dice_weight)
        total = weights.contrast_weight * contrast + weights.patch_weight * patch + weights.pair_weight * pair
        total = total + weights.teacher_weight * teacher
        return PretrainLosses(total, contrast, patch, pair, teacher)

    def teacher_loss(
        self, batch: PretrainBatch, local: Tensor, late: Tensor, cls: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """How much of the teacher's variance is not predicted; 0 without one. Tokens (B, N, W), cls (B, W)."""
        if self.teacher is None or self.student is None:
            return torch.zeros((), device=self.device)
        target = batch.teacher if batch.teacher is not None else self.teacher(batch.images, grid)
        loss: Tensor = self.student(local, late, cls, target)
        return loss

    def advance(self, batch: PretrainBatch) -> PretrainLosses:
        """One optimiser step.

        Raises:
            InputError: the gradient is not finite; the weights, and with them what is saved, stay as they were.
        """
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.rate(self.step) * group["share"]
        losses = self.losses(batch)
        for optimiser in self.optimisers:  # the student's heads too
            optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), self.config.clip_gradient)
        if not torch.isfinite(norm):
            raise InputError(
                f"the gradient is {float(norm)} in step {self.step + 1} (loss {float(losses.total.detach())}); "
                "lower the learning rate, or set the recipe's precision to fp32"
            )
        with uninterrupted():  # a state that is saved is that of a whole number of steps
            self._apply_gradients()
        return losses

    def _apply_gradients(self) -> None:
        for optimiser in self.optimisers:
            optimiser.step()
        with torch.no_grad():
            self.backbone.logit_scale.clamp_(max=math.log(100))
            keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.values()), list(self.backbone.parameters()), 1 - keep)
        self.step += 1

    def state(self) -> dict[str, Any]:
        return {
            "config": asdict(self.config),
            "architecture": self.backbone.config.to_dict(),
            "step": self.step,
            "model": self.backbone.state_dict(),
            "average": self.average,
            "photographs": None if self.photographs is None else self.photographs.fingerprint(),
            "student": None if self.student is None else self.student.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
        }

    def restore(self, path: Path) -> None:
        """Go on from a state file. `images` may differ: what is left of the schedule is stretched or shortened.

        Raises:
            InputError: it belongs to a run with other settings.
        """
        state = load_torch(path)
        with reading_state(path):
            self._restore(state, path)

    def _restore(self, state: dict[str, Any], path: Path) -> None:
        architecture = ClipConfig.from_dict(state["architecture"]).to_dict()  # with what was added to it since
        theirs = state["config"] | {"images": self.config.images, "architecture": architecture}  # the length may change
        ours = asdict(self.config) | {"architecture": self.backbone.config.to_dict()}
        theirs, ours = json.loads(json.dumps([theirs, ours]))
        other = sorted(key for key in theirs | ours if theirs.get(key) != ours.get(key))
        if other:
            raise InputError(
                f"{path} belongs to a run with other settings ({', '.join(other)}); "
                "give the same ones or another folder"
            )
        if state.get("photographs") != (None if self.photographs is None else self.photographs.fingerprint()):
            raise InputError(f"{path} was made with other photographs, or none; go on with the same ones")
        if (self.student is None) != (state.get("student") is None):
            raise InputError(f"{path} was made {'without' if self.student else 'with'} a teacher; go on the same way")
        self.backbone.load_state_dict(state["model"])
        if self.student is not None:
            self.student.load_state_dict(state["student"])
        self.average = {name: value.to(self.device) for name, value in state["average"].items()}
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step = state["step"]

    def averaged_backbone(self) -> Backbone:
        """A frozen copy with the averaged weights."""
        copy = Backbone(self.backbone.config, self.backbone.tokenizer, self.backbone.name)
        copy.load_state_dict(self.average)
        return copy.freeze()

    def run(
        self,
        folder: Path,
        *,
        workers: int = 1,
        save_seconds: float = 300.0,
        stop_seconds: float = math.inf,
        progress: Callable[[int, PretrainLosses], None] | None = None,
    ) -> bool:
        """Train until the schedule ends, or `stop_seconds` have passed; True when it is complete.

        Writes `state.pt` (to resume) and `log.jsonl` (one line every 10 steps) into the folder.
        """
        with sole_writer(folder / "state.pt"):
            return self._run(folder, workers, save_seconds, stop_seconds, progress)

    def _run(
        self,
        folder: Path,
        workers: int,
        save_seconds: float,
        stop_seconds: float,
        progress: Callable[[int, PretrainLosses], None] | None,
    ) -> bool:
        log = folder / "log.jsonl"
        trim_log(log, "step", self.step)
        data = RenderStream(
            seed=self.config.seed,
            batch_size=self.config.batch_size,
            early=(int(self.config.early_share * self.config.steps), self.whole_patches(self.config.early_sizes)),
            late_sizes=self.whole_patches(self.config.late_sizes),
            start=self.step,
            stop=self.config.steps,
            defect_rate=self.config.defect_rate,
            teacher=self.teacher if self.device.type == "cpu" else None,
            patch_size=self.backbone.config.vision.patch_size,
            photographs=self.photographs,
        )
        begun = saved = time.monotonic()
        try:
            for batch in stream(data, workers):
                losses = self.advance(batch)
                now = time.monotonic()
                if self.step % 10 == 0 or self.step == self.config.steps:
                    append_json_line(log, self.log_entry(losses, now - begun))
                if progress is not None:
                    progress(self.step, losses)
                if now - saved > save_seconds:
                    save_torch(self.state(), folder / "state.pt")
                    saved = now
                if now - begun > stop_seconds:
                    break
        finally:
            save_torch(self.state(), folder / "state.pt")
        return self.step >= self.config.steps

    def whole_patches(self, sizes: Sizes) -> Sizes:
        """The sizes, each side rounded to a multiple of the patch."""
        patch = self.backbone.config.vision.patch_size
        return tuple((max(1, round(h / patch)) * patch, max(1, round(w / patch)) * patch) for h, w in sizes)

    def log_entry(self, losses: PretrainLosses, seconds: float) -> dict[str, Any]:
        entry = {name: round(float(value.detach()), 5) for name, value in vars(losses).items()}
        return {"step": self.step, "images": self.step * self.config.batch_size, "seconds": round(seconds, 1), **entry}
