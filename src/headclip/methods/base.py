"""What every method promises, and the registry that finds it by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.vision import VisionRequest, VisionTokens
from headclip.errors import InputError


@dataclass
class Scores:
    """What a method says of a batch. Values lie in [0, 1], those of the map in [0, `Method.map_maximum`].

    anomaly_map: (B, H, W) at the resolution asked for. score: (B,) the image score; global_score and
    local_score: (B,) the two parts it was joined from.
    """

    anomaly_map: Tensor
    score: Tensor
    global_score: Tensor
    local_score: Tensor


class Method(nn.Module, ABC):
    """A zero-shot anomaly detector on top of a frozen backbone.

    The backbone is kept outside the module's own parameters, so that `parameters()`, `state_dict()` and a
    checkpoint hold what the method learns and nothing else.
    """

    name: ClassVar[str] = ""
    config_class: ClassVar[type]

    def __init__(self, backbone: Backbone, config: Any) -> None:
        super().__init__()
        object.__setattr__(self, "backbone", backbone)
        self.config = config

    backbone: Backbone

    @property
    @abstractmethod
    def request(self) -> VisionRequest:
        """What the method needs of the vision pass."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side in pixels at which images enter the tower unless the user asks for another."""

    @property
    def map_maximum(self) -> float:
        """Largest value that the method's map can take; detectors divide by it."""
        return 1.0

    @abstractmethod
    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E) unit vectors, order normal, abnormal; C is 1 for a method that ignores the category."""

    @abstractmethod
    def tokens(self, pixels: Tensor) -> VisionTokens:
        """One vision pass over normalised pixels (B, 3, H, W), in the method's own settings."""

    @abstractmethod
    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        """Map and image score.

        Args:
            text: (2, E), one entry of `text_vectors`.
            size: (H, W) of the pixels that entered the tower.
            output: resolution of the returned map; None keeps `size`.
        """

    def score_pixels(self, pixels: Tensor, text: Tensor | None = None) -> Scores:
        """`tokens` and `score` in one call, for pixels (B, 3, H, W)."""
        vectors = self.text_vectors()[0] if text is None else text
        return self.score(self.tokens(pixels), vectors, (pixels.shape[-2], pixels.shape[-1]))

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that training may change, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def config_dict(self) -> dict[str, Any]:
        """The configuration in JSON form."""
        return asdict(self.config)


M = TypeVar("M", bound=type[Method])
_REGISTRY: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator: make a method known under `name`."""

    def add(cls: M) -> M:
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def list_methods() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(_REGISTRY)


def create_method(name: str, backbone: Backbone, config: Any = None) -> Method:
    """Build a method by name; `config` may be its dataclass, a dict of its fields, or None for the defaults.

    Raises:
        InputError: unknown name or field; the message lists what exists.
    """
    if name not in _REGISTRY:
        raise InputError(f"unknown method '{name}'; known: {', '.join(list_methods())}")
    cls = _REGISTRY[name]
    if isinstance(config, dict):
        config = config_from_dict(cls.config_class, config)
    return cls(backbone, config)


def config_from_dict(cls: type, values: dict[str, Any]) -> Any:
    """A frozen config dataclass from JSON values; lists become tuples.

    Raises:
        InputError: a field that the class does not have.
    """
    assert is_dataclass(cls)
    known = {item.name for item in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(f"unknown setting {', '.join(unknown)}; {cls.__name__} has {', '.join(sorted(known))}")
    return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def pick_text(vectors: Tensor, batch: int) -> Tensor:
    """(C, 2, E) -> (2, E) for a category-free method, or (batch, 2, E) where each image has its own."""
    if len(vectors) == 1:
        return vectors[0]
    if len(vectors) != batch:
        raise InputError(f"{len(vectors)} categories were given for {batch} images")
    return vectors


def method_seed(seed: int | None) -> torch.Generator | None:
    """A generator for the first values of learnt parameters; None leaves it to torch's global state."""
    return None if seed is None else torch.Generator().manual_seed(seed)
