"""Settings of a pretraining run, and recipes: JSON files that hold some of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from headclip.errors import InputError
from headclip.files import load_json
from headclip.training.pretrain_data import Sizes


@dataclass(frozen=True)
class PretrainConfig:
    """One pretraining run. `images` fixes the schedule: warm-up, then the peak rate, then over the last
    `decay_share` of the steps a cosine down to `final_rate` of the peak (1 decays all along); the first `early_share`
    of the steps sees small images, which cost less, the rest larger ones. The teacher's settings count only where
    there is one, and `photograph_share` where there are photographs."""

    images: int = 64_000
    batch_size: int = 32
    early_sizes: Sizes = ((112, 112), (128, 128), (144, 144), (96, 176), (176, 96))
    late_sizes: Sizes = ((160, 160), (192, 192), (224, 224), (128, 256), (256, 128))
    early_share: float = 0.7
    rate: float = 8e-4
    final_rate: float = 0.02
    decay_share: float = 1.0
    warmup: int = 100
    weight_decay: float = 0.05
    clip_gradient: float = 1.0
    ema: float = 0.999
    defect_rate: float = 0.6
    photograph_share: float = 0.4
    contrast_weight: float = 0.5
    patch_weight: float = 1.0
    pair_weight: float = 0.25
    defect_weight: float = 4.0
    dice_weight: float = 1.0
    teacher_weight: float = 1.0
    teacher_blocks: tuple[int, ...] = (5, 8)
    temperature: float = 0.07
    seed: int = 1
    precision: str = "bf16"

    @property
    def steps(self) -> int:
        return max(1, self.images // max(1, self.batch_size))


def read_recipe(path: Path | None, **options: Any) -> PretrainConfig:
    """Settings from a JSON file (or none) with the options that are not None on top.

    Raises:
        InputError: the file is no JSON object, or names a setting that does not exist.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = load_json(path)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the recipe {path}: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"the recipe {path} is no JSON object")
    values |= {name: value for name, value in options.items() if value is not None}
    known = {field.name for field in fields(PretrainConfig)}
    if unknown := sorted(set(values) - known):
        raise InputError(f"no such setting: {', '.join(unknown)}; a recipe may hold {', '.join(sorted(known))}")
    return PretrainConfig(**{name: _checked(name, value) for name, value in values.items()})


def _checked(name: str, value: Any) -> Any:
    """The value of a setting, of the kind that its default has.

    Raises:
        InputError: it is of another, or no number that makes sense.
    """
    default = getattr(PretrainConfig, name)
    wanted = {int: "a whole number", float: "a number", str: "a word"}.get(type(default), "a list of whole numbers")
    if isinstance(default, str) and isinstance(value, str):
        return value
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        pairs = name.endswith("_sizes")
        if value and all(_is_pair(item) if pairs else _is_count(item) for item in value):
            return tuple(tuple(item) for item in value) if pairs else tuple(value)
        wanted = "a list of [height, width]" if pairs else wanted
    if isinstance(default, float) and (_is_count(value) or isinstance(value, float)) and abs(value) < 1e15:
        return value
    if isinstance(default, int) and _is_count(value):
        return value
    raise InputError(f"the recipe's {name} should be {wanted}, not {str(value)[:40]!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_is_count(side) and side > 0 for side in value)
