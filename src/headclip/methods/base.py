"""What every method promises, and the registry that finds it by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from headclip.clip.backbone import Backbone
from headclip.clip.streams import Stream
from headclip.clip.vision import VisionRequest, VisionTokens
from headclip.errors import InputError
from headclip.methods.settings import check_kinds


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

    Class attributes, which `headclip methods` lists: `summary` says in one line what the method is, `learns` what
    training changes (empty: nothing); `uses_category`: sentences name what an image shows; `needs_text`: a backbone
    without a text tower is refused; `takes_references`: normal images turn on a few-shot variant, at least
    `least_references` of them; `takes_peers`: images can be compared with others of their kind. `text_settings`: the
    settings on which text vectors depend, besides backbone and learnt values, for methods of which a checkpoint keeps
    them; empty for the others.
    """

    name: ClassVar[str] = ""
    config_class: ClassVar[type]
    summary: ClassVar[str] = ""
    learns: ClassVar[str] = ""
    uses_category: ClassVar[bool] = False
    needs_text: ClassVar[bool] = True
    takes_references: ClassVar[bool] = False
    least_references: ClassVar[int] = 1
    takes_peers: ClassVar[bool] = False
    text_settings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, backbone: Backbone, config: Any) -> None:
        super().__init__()
        object.__setattr__(self, "backbone", backbone)
        self.config = config
        self.asked_size: int | None = None  # the setting image_size, where somebody gave it for this very method
        self._kept_text: tuple[Tensor, tuple[int, ...]] | None = None
        self.memory: Any = None  # of images to compare with, in methods that take some; without(places) leaves some out

    backbone: Backbone

    @property
    @abstractmethod
    def request(self) -> VisionRequest:
        """What the method needs of the vision pass."""

    @property
    def image_size(self) -> int:
        """Side in pixels at which images enter the tower unless the user asks for another."""
        return int(self.asked_size or self.backbone.config.default_image_size or self.config.image_size)

    @property
    def keep_aspect(self) -> bool:
        """Whether an image should keep its aspect ratio on the way to the tower, whatever the backbone prefers."""
        return False

    @property
    def map_maximum(self) -> float:
        """Largest value that the method's map can take; detectors divide by it."""
        return 1.0

    @abstractmethod
    def text_vectors(self, categories: Sequence[str] | None = None) -> Tensor:
        """(C, 2, E) unit vectors, order normal, abnormal; C is 1 for a method that ignores the category.

        categories: one for each entry wanted; None stands for the one that the configuration names. A method
        without sentences returns (1, 2, 0).
        """

    def learnt_layers(self) -> dict[str, tuple[int, ...]]:
        """By what was learnt, the layers (from 1) that its values stand for, one after another."""
        return {}

    def keep_text(self, vectors: Tensor) -> None:
        """Let `kept_text` answer with these `text_vectors`, as long as nothing is learnt."""
        self._kept_text = (vectors, self._versions())

    def kept_text(self, categories: Sequence[str] | None = None) -> Tensor:
        """`text_vectors`, without running the text tower where the checkpoint held them."""
        if self._kept_text is None or self._kept_text[1] != self._versions():
            return self.text_vectors(categories)
        return self._kept_text[0].to(self.backbone.device)

    def _versions(self) -> tuple[int, ...]:
        """Counts how often each parameter has been written to."""
        return tuple(value._version for value in self.parameters())

    @abstractmethod
    def tokens(self, pixels: Tensor) -> VisionTokens:
        """One vision pass over normalised pixels (B, 3, H, W), in the method's own settings."""

    def stream(self) -> Stream | None:
        """What `tokens` takes of a single vision pass, so that several methods can share one; None where it needs
        more than that and the method has to run by itself."""
        return None

    @abstractmethod
    def score(
        self, tokens: VisionTokens, text: Tensor, size: tuple[int, int], output: tuple[int, int] | None = None
    ) -> Scores:
        """Map and image score.

        Args:
            text: (2, E), one entry of `text_vectors`, or (B, 2, E) with one for each image.
            size: (H, W) of the pixels that entered the tower.
            output: resolution of the returned map; None keeps `size`.
        """

    def score_pixels(self, pixels: Tensor, text: Tensor | None = None, output: tuple[int, int] | None = None) -> Scores:
        """`tokens` and `score` in one call, for pixels (B, 3, H, W): what a detector runs on each batch."""
        vectors = self.text_vectors()[0] if text is None else text
        return self.score(self.tokens(pixels), vectors, (pixels.shape[-2], pixels.shape[-1]), output)

    def set_references(self, pixels: Tensor | Sequence[Tensor] | None) -> None:
        """Normal images that turn on the few-shot variant; None turns it off.

        Args:
            pixels: (K, 3, H, W), normalised as for `tokens`, or several such where sizes differ.

        Raises:
            InputError: the method has no such variant.
        """
        if pixels is not None:
            able = [name for name, cls in _REGISTRY.items() if cls.takes_references]
            raise InputError(
                f"{self.name} has no few-shot variant and takes no reference images; "
                f"methods that do: {', '.join(sorted(able)) or 'none'}"
            )

    @contextmanager
    def without_references(self, places: Collection[int]) -> Iterator[None]:
        """Within it, images are judged as if the reference images at these places had never been given.

        Raises:
            InputError: there are no references, or too few without them.
        """
        if self.memory is None:
            raise InputError("no reference images are remembered; call set_references first")
        whole, self.memory = self.memory, self.memory.without(places)
        try:
            yield
        finally:
            self.memory = whole

    def set_peers(self, pixels: Sequence[Tensor] | None, weight: float = 1.0) -> None:
        """Images of the same kind as those to judge, with or without faults, to compare each image with.

        Args:
            pixels: one (1, 3, H, W) an image, normalised as for `tokens`; None forgets them.
            weight: 0 or more; how much the comparison counts.

        Raises:
            InputError: the method cannot compare images, or there are fewer than two.
        """
        if pixels is not None:
            able = [name for name, cls in _REGISTRY.items() if cls.takes_peers]
            raise InputError(
                f"{self.name} cannot compare images with each other; methods that can: {', '.join(sorted(able))}"
            )

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that training may change, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def config_dict(self) -> dict[str, Any]:
        """The configuration in JSON form."""
        return asdict(self.config)

    @classmethod
    def from_official(
        cls, content: Mapping[str, Any], backbone: Backbone, settings: Mapping[str, Any] | None = None
    ) -> Method | None:
        """The method with the values of its authors' own checkpoint file, or None where `content` is no such file.

        Args:
            content: what the file holds.
            settings: fields of the configuration that differ from what the file implies.

        Raises:
            CheckpointError: it is one, but does not fit the backbone.
        """
        return None


class TrainableMethod(Method):
    """A method that `headclip train` can train: it gives logits and maps, the trainer makes losses of them.

    image_loss: of the image logits. learns_maps: False where `pixel_maps` is empty, so that training reads the class
    token alone. training_defaults: settings of the run (fields of `TrainConfig`) that the
    method was published with, where they are not AnomalyCLIP's.
    """

    image_loss: ClassVar[Literal["cross_entropy", "focal"]] = "cross_entropy"
    learns_maps: ClassVar[bool] = True
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    @abstractmethod
    def image_logits(self, tokens: VisionTokens, text: Tensor) -> Tensor:
        """(B, 2) logits of the whole image, order normal, abnormal. text: as for `score`."""

    @abstractmethod
    def pixel_maps(self, tokens: VisionTokens, text: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """For each map with a loss of its own, (B, 2, *size) probabilities of normal and abnormal, not smoothed.

        An empty list where the method learns from image labels alone.
        """

    @property
    def local_weight(self) -> float:
        """Factor of the pixel loss unless the user gives another (A18)."""
        return 1.0

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What trains, by group; a group named "heads" may have a learning rate of its own."""
        return {"all": list(self.trainable().values())}

    def optimiser(self, groups: list[dict[str, Any]], rate: float, betas: tuple[float, float]) -> torch.optim.Optimizer:
        """Adam over the trainer's parameter groups, as in AnomalyCLIP's code base."""
        return torch.optim.Adam(groups, lr=rate, betas=betas)


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


def method_class(name: str) -> type[Method]:
    """The class registered under `name`.

    Raises:
        InputError: unknown name; the message lists what exists.
    """
    if name not in _REGISTRY:
        raise InputError(f"unknown method '{name}'{_meant(name, _REGISTRY)}; known: {', '.join(list_methods())}")
    return _REGISTRY[name]


def create_method(name: str, backbone: Backbone, config: Any = None) -> Method:
    """Build a method by name; `config` may be its dataclass, a dict of its fields, or None for the defaults.

    Raises:
        InputError: unknown name or field; the message lists what exists.
    """
    cls = method_class(name)
    if not isinstance(config, dict):
        return cls(backbone, config)
    method = cls(backbone, config_from_dict(cls.config_class, config))
    method.asked_size = config.get("image_size")
    return method


def config_from_dict(cls: type, values: dict[str, Any]) -> Any:
    """A `MethodConfig` from JSON values; lists become tuples.

    Raises:
        InputError: a field that the class does not have, or a value of the wrong kind.
    """
    assert is_dataclass(cls)
    known = {item.name for item in fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        meant = _meant(unknown[0], known)
        raise InputError(f"unknown setting {', '.join(unknown)}{meant}; {cls.__name__} has {', '.join(sorted(known))}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return cls(**given)
    except TypeError as error:  # a comparison that such a value cannot take part in
        check_kinds(cls, given)
        raise InputError(f"a setting of {cls.__name__} has a value of the wrong kind: {error}") from error


def _meant(name: str, known: Iterable[str]) -> str:
    """A guess at what a wrong name should have been; "" without one."""
    close = get_close_matches(name.lower().replace("-", "_"), list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


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
