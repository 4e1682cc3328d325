"""The architecture of a CLIP model as frozen dataclasses; an instance is one JSON file in `configs/`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from headclip.errors import BackboneError
from headclip.files import load_json

Activation = Literal["quick_gelu", "gelu"]
CELLS = 4  # of the detail filters, along one side of a patch
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class VisionConfig:
    """A vision transformer. `image_size` is the side, in pixels, that the position embeddings were trained for;
    `detail` the number of filters for what is finer than a patch (`clip.detail`), which published CLIPs have none of;
    `rarity` whether the tower is told how unlike each patch is to the rest of its picture (`clip.rarity`).
    """

    width: int
    layers: int
    heads: int
    patch_size: int
    image_size: int
    mlp_ratio: float = 4.0
    activation: Activation = "quick_gelu"
    detail: int = 0
    rarity: bool = False

    @property
    def grid(self) -> int:
        """Patches along one side at the native size."""
        return self.image_size // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class TextConfig:
    """A causal text transformer over byte-pair tokens."""

    width: int
    layers: int
    heads: int
    context_length: int = 77
    vocab_size: int = 49408
    mlp_ratio: float = 4.0
    activation: Activation = "quick_gelu"


@dataclass(frozen=True)
class ClipConfig:
    """Both towers, the width they share, and the pixel statistics they were trained with.

    `text` is None for a backbone that has a vision tower only. `default_image_size`, `keep_aspect` and
    `least_side` (see `headclip.clip.preprocess.input_size`) say how images are prepared unless the user asks otherwise;
    None means the method decides.
    """

    name: str
    embed_dim: int
    vision: VisionConfig
    text: TextConfig | None
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    default_image_size: int | None = None
    keep_aspect: bool = False
    least_side: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClipConfig:
        """Build from the JSON form.

        Raises:
            BackboneError: a field is missing, unknown or of the wrong kind.
        """
        try:
            rest = dict(values)
            vision = VisionConfig(**rest.pop("vision"))
            text = rest.pop("text", None)
            for key in ("mean", "std"):
                if key in rest:
                    rest[key] = tuple(rest[key])
            config = cls(vision=vision, text=None if text is None else TextConfig(**text), **rest)
            config.check()
        except (TypeError, KeyError, ValueError, ZeroDivisionError) as error:
            raise BackboneError(f"not a valid model configuration: {error}") from error
        return config

    @classmethod
    def load(cls, path: Path) -> ClipConfig:
        """From a JSON file.

        Raises:
            BackboneError: it cannot be read, or is no configuration.
        """
        try:
            values = load_json(path)
        except (OSError, ValueError) as error:
            raise BackboneError(f"{path} cannot be read: {error}") from error
        if not isinstance(values, dict):
            raise BackboneError(f"{path} does not hold a JSON object")
        return cls.from_dict(values)

    def check(self) -> None:
        """Raise BackboneError where a value is of the wrong kind, or the numbers contradict each other."""
        for which, tower in (("vision", self.vision), ("text", self.text)):
            if tower is not None:
                _check_tower(which, tower)
        if not _is_whole(self.embed_dim, 1, _MOST["width"]):
            raise BackboneError(
                f"embed_dim {_shown(self.embed_dim)}: a whole number up to {_MOST['width']:,} is needed"
            )
        _check_detail(self.vision)
        if self.vision.image_size % self.vision.patch_size:
            raise BackboneError(
                f"image size {self.vision.image_size} is not a multiple of the patch size {self.vision.patch_size}"
            )
        self._check_preparation()

    def _check_preparation(self) -> None:
        """What is said of images before they enter the tower."""
        for name, values, least in (("mean", self.mean, -math.inf), ("std", self.std, 0.0)):
            if len(values) != 3 or not all(_is_number(value) and value > least for value in values):
                kind = "three numbers" if name == "mean" else "three numbers above 0"
                raise BackboneError(f"{name} {_shown(values)}: {kind} are needed, one for each colour")
        size = self.default_image_size
        if size is not None and not _is_whole(size, 1, _MOST["image_size"]):
            raise BackboneError(
                f"default_image_size {_shown(size)}: a whole number up to {_MOST['image_size']:,}, or null"
            )
        if not isinstance(self.keep_aspect, bool):
            raise BackboneError(f"keep_aspect {_shown(self.keep_aspect)}: true or false is needed")
        if not _is_number(self.least_side) or not 0 <= self.least_side <= 1:
            raise BackboneError(f"least_side {_shown(self.least_side)}: a share from 0 to 1 is needed")


def _check_tower(which: str, tower: VisionConfig | TextConfig) -> None:
    for name, most in _MOST.items():
        value = getattr(tower, name, 1)
        if not _is_whole(value, 1, most):
            raise BackboneError(f"{which} {name} {_shown(value)}: a whole number up to {most:,} is needed")
    if tower.width % tower.heads:
        raise BackboneError(f"{which} width {tower.width} is not a multiple of its {tower.heads} heads")
    if not _is_number(tower.mlp_ratio) or not 1 <= tower.width * tower.mlp_ratio <= _MOST_HIDDEN:
        raise BackboneError(f"{which} mlp_ratio {_shown(tower.mlp_ratio)}: what it makes of {tower.width} is no width")
    if tower.activation not in get_args(Activation):
        known = " or ".join(get_args(Activation))
        raise BackboneError(f"{which} activation {_shown(tower.activation)}: {known} is needed")


def _check_detail(vision: VisionConfig) -> None:
    if not _is_whole(vision.detail, 0, _MOST["width"]):
        raise BackboneError(f"vision detail {_shown(vision.detail)}: a whole number from 0 is needed")
    if vision.detail and vision.patch_size % CELLS:
        raise BackboneError(f"detail needs a patch size that is a multiple of {CELLS}, not {vision.patch_size}")
    if not isinstance(vision.rarity, bool):
        raise BackboneError(f"vision rarity {_shown(vision.rarity)}: true or false is needed")
    if vision.rarity and not vision.detail:
        raise BackboneError("rarity needs detail filters, since it compares what they answer")


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: object) -> bool:
    """Neither true nor false, nor what is not finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _shown(value: object) -> str:
    """The start of a value, which may be anything."""
    return str(value)[:40]


# Far beyond every published model; what lies above would only keep the machine busy.
_MOST = {
    "width": 1 << 15,
    "layers": 1 << 10,
    "heads": 1 << 10,
    "patch_size": 1 << 12,
    "image_size": 1 << 14,
    "context_length": 1 << 16,
    "vocab_size": 1 << 22,
}
_MOST_HIDDEN = 1 << 18  # width of the layer inside an MLP


def known_architectures() -> dict[str, Path]:
    """Short name -> JSON file of every architecture that ships with the package."""
    folder = Path(__file__).parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}
