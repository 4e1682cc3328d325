"""Settings of a training run."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from headclip.errors import InputError
from headclip.training.feature_codec import FeatureDtype
from headclip.training.losses import PixelLoss

Schedule = Literal["constant", "cosine"]


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
    pixel_loss: PixelLoss = "focal_dice"  # equation 10; "cross_entropy" takes its place
    schedule: Schedule = "constant"  # of the learning rates; "cosine" lets them fall to 0 over the run
    start_from: str = ""  # `learnt_hash` of the checkpoint whose method the trainer was given: kept as a record
    only: tuple[str, ...] = ()  # groups of parameters that learn (`TrainableMethod.parameter_groups`); () all
    seed: int = 111
    keep_features: bool | Literal["memory"] | str | Path = False  # run the tower once an image; a path: a folder
    features_dtype: FeatureDtype = "fp16"  # how features are kept: see `FeatureStore`

    def __post_init__(self) -> None:
        if self.features_dtype not in ("fp16", "int8"):
            raise InputError(f"features are kept as fp16 or int8, not as {self.features_dtype}")
        if self.pixel_loss not in get_args(PixelLoss):
            raise InputError(f"the pixel loss is focal_dice or cross_entropy, not {self.pixel_loss}")
        if self.schedule not in get_args(Schedule):
            raise InputError(f"the schedule of the learning rate is constant or cosine, not {self.schedule}")
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.rate < math.inf:
            raise InputError("training needs at least one epoch, one image a batch and a positive learning rate")
        for name, value in (("weight of the pixel loss", self.local_weight), ("rate of the heads", self.head_rate)):
            if value is not None and not 0 <= value < math.inf:
                raise InputError(f"the {name} is a number from 0, not {value}")
        if self.start_from and not re.fullmatch("[0-9a-f]{64}", self.start_from):
            raise InputError(
                f"start_from is a record, the learnt_hash of a checkpoint, not {self.start_from!r}; load the "
                "checkpoint with load_checkpoint, and give its method to the Trainer"
            )
        object.__setattr__(self, "only", tuple(sorted(set(self.only))))

    def facts(self) -> dict[str, Any]:
        """The settings as a checkpoint keeps them: where features lie makes no difference, how they are kept does."""
        return {**asdict(self), "keep_features": bool(self.keep_features)}
