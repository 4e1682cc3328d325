"""What an ablation has to do: which models to train, which detectors to run, and which row reads which of them.

Rows that differ in nothing that training sees share a model; rows that differ in the joint score ratio alone share a
detector too, since equation 8 needs only the two parts of the score.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from headclip.ablation.definitions import Ablation, Variant
from headclip.ablation.layers import scale_settings
from headclip.clip.config import ClipConfig
from headclip.errors import InputError
from headclip.methods import TrainableMethod
from headclip.methods.base import Method, config_from_dict, method_class
from headclip.methods.headclip import proportional_deep_layers
from headclip.methods.similarity import SimilarityMethod
from headclip.training.train_config import TrainConfig

SCORING = ("alpha", "top_share", "top_level", "sigma", "map_from", "global_score", "normalise_map", "tap_fusion")
"""Settings that training never sees, in methods of the `SimilarityMethod` family."""
PLANNED = ("seed", "keep_features")
"""Fields of `TrainConfig` that the ablation itself decides."""


@dataclass(frozen=True)
class Settings:
    """Settings that all rows have in common, unless a row says otherwise.

    everywhere: for every trained method that has them. by_method: for one method alone, trained or not.
    """

    everywhere: Mapping[str, Any] = field(default_factory=dict)
    by_method: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Settings:
        """From {"sigma": 2, "winclip.temperature": 0.1}.

        Raises:
            InputError: a method that does not exist.
        """
        everywhere, by_method = {}, dict[str, dict[str, Any]]()
        for name, value in values.items():
            method, dot, rest = name.partition(".")
            if dot:
                by_method.setdefault(method_class(method).name, {})[rest] = value
            else:
                everywhere[name] = value
        return cls(everywhere, by_method)


@dataclass(frozen=True)
class Model:
    """Something to train once for each seed. config: of the method, without its seed; train: of `TrainConfig`.

    An image size is in `config` where somebody asked for one; else the backbone says which.
    """

    key: str
    label: str
    method: str
    config: Mapping[str, Any]
    train: Mapping[str, Any]

    @property
    def trained(self) -> bool:
        """False for a method that learns nothing, which needs no seeds either."""
        return issubclass(method_class(self.method), TrainableMethod)

    def file(self, seed: int) -> str:
        """The checkpoint's name."""
        return f"{self.key}-seed{seed}.safetensors"

    def method_config(self, seed: int) -> dict[str, Any]:
        """The configuration with the seed of the first values."""
        seeded = "seed" in {item.name for item in fields(method_class(self.method).config_class)}
        return {**self.config, **({"seed": seed} if seeded else {})}


@dataclass(frozen=True)
class Judge:
    """A model with scoring settings: what one detector is made of. alpha: its joint score ratio, None without one."""

    key: str
    model: Model
    scoring: Mapping[str, Any]
    alpha: float | None

    def seeds(self, seeds: Sequence[int]) -> tuple[int, ...]:
        """The seeds that make a difference."""
        return tuple(seeds) if self.model.trained else tuple(seeds[:1])


@dataclass(frozen=True)
class Row:
    """A variant, the detector that it reads, and the ratio of its image score (None: the detector's own score)."""

    variant: Variant
    judge: Judge
    alpha: float | None


@dataclass(frozen=True)
class Plan:
    """All of an ablation. left_out: rows that nobody asks for, which may have been finished earlier."""

    ablation: Ablation
    rows: tuple[Row, ...]
    left_out: tuple[Row, ...] = ()

    @property
    def judges(self) -> list[Judge]:
        """Each detector once."""
        return list({row.judge.key: row.judge for row in self.rows}.values())

    @property
    def models(self) -> list[Model]:
        """Each model that is trained, once."""
        return list({judge.model.key: judge.model for judge in self.judges if judge.model.trained}.values())


def make_plan(ablation: Ablation, config: ClipConfig, settings: Settings, train: Settings) -> Plan:
    """Scale the layers to the tower, join common settings, and find what can be shared.

    Raises:
        InputError: a setting that no method of the ablation has; a value or layer that does not fit; the message says
            what would.
    """
    _check_names(ablation, settings, train)
    labels = [(variant.axis, variant.label) for variant in ablation.every_variant]
    assert len(set(labels)) == len(labels)
    rows = []
    for variant in ablation.every_variant:
        try:
            rows.append(_row(variant, config, settings, train))
        except InputError:
            if variant in ablation.variants:
                raise
    rows = _shared(rows)  # with those left out, so that a model has the same name with and without them
    wanted = tuple(row for row in rows if row.variant in ablation.variants)
    return Plan(ablation, wanted, tuple(row for row in rows if row.variant not in ablation.variants))


def _row(variant: Variant, config: ClipConfig, settings: Settings, train: Settings) -> Row:
    cls = method_class(variant.method)
    text = None if config.text is None else config.text.layers
    known = {item.name for item in fields(cls.config_class)}
    common = {
        name: value for name, value in settings.everywhere.items() if issubclass(cls, TrainableMethod) and name in known
    }
    given = {**common, **settings.by_method.get(cls.name, {})}
    own = scale_settings(variant.settings, config.vision.layers, text)
    values = _values(variant, cls, {**given, **own}, text)
    later = SCORING if issubclass(cls, SimilarityMethod) else ("alpha",)
    learnt = {name: value for name, value in own.items() if name not in later}
    of_training = _values(variant, cls, {**given, **learnt}, text)
    model = _model(variant, cls, of_training, later, train, "image_size" in {**given, **learnt})
    scoring = {name: values[name] for name in later if name in values}
    others = {name: value for name, value in scoring.items() if name != "alpha"}
    key = f"{model.key}-{_digest(others)}" if others else model.key
    alpha = values.get("alpha")
    return Row(variant, Judge(key, model, scoring, alpha), alpha)


def _values(variant: Variant, cls: type[Method], given: Mapping[str, Any], text: int | None) -> dict[str, Any]:
    """Every setting of the method but its seed, as given or by default."""
    try:
        built = config_from_dict(cls.config_class, dict(given))
    except InputError as error:
        raise InputError(f"{variant.label}: {error}") from error
    values = asdict(built)
    values.pop("seed", None)
    if "deep_layers" in values and values["deep_layers"] is None and text is not None:
        values["deep_layers"] = proportional_deep_layers(text)
    return values


def _model(
    variant: Variant, cls: type[Method], values: Mapping[str, Any], later: Sequence[str], train: Settings, sized: bool
) -> Model:
    """later: settings that training never sees, which tell no models apart; sized: an image size was asked for."""
    learnt = {name: value for name, value in values.items() if name not in later}
    training = _train_values(variant, cls, train) if issubclass(cls, TrainableMethod) else {}
    digest = _digest([cls.name, learnt, training, *(["sized"] if sized else [])])
    config = {name: value for name, value in values.items() if sized or name != "image_size"}
    return Model(f"{_plain(variant.label)}-{digest}", variant.label, cls.name, config, training)


def _train_values(variant: Variant, cls: type[TrainableMethod], train: Settings) -> dict[str, Any]:
    given = {**cls.training_defaults, **train.everywhere, **train.by_method.get(cls.name, {}), **variant.train}
    joined: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    try:
        full = asdict(TrainConfig(**joined))
    except TypeError as error:
        raise InputError(f"--train: a value of the wrong kind: {error}") from error
    return {name: value for name, value in full.items() if name not in PLANNED}


def _check_names(ablation: Ablation, settings: Settings, train: Settings) -> None:
    classes = {variant.method: method_class(variant.method) for variant in ablation.every_variant}
    trained = {name: cls for name, cls in classes.items() if issubclass(cls, TrainableMethod)}
    fields_of = {name: {item.name for item in fields(cls.config_class)} for name, cls in classes.items()}
    known = set().union(*(fields_of[name] for name in trained))
    for name in settings.everywhere:
        if name not in known:
            raise InputError(f"--set {name}: no trained method of {ablation.name} has it; there is {_list(known)}")
    for method, values in settings.by_method.items():
        _check_method(method, classes, ablation)
        for name in values:
            if name not in fields_of[method]:
                raise InputError(f"--set {method}.{name}: {method} has {_list(fields_of[method])}")
    possible = {item.name for item in fields(TrainConfig)} - set(PLANNED)
    for method, values in {"": train.everywhere, **train.by_method}.items():
        if method:
            _check_method(method, trained, ablation)
        for name in values:
            if name not in possible:
                raise InputError(f"--train {name}: training has {_list(possible)}")


def _check_method(method: str, known: Mapping[str, Any], ablation: Ablation) -> None:
    if method not in known:
        raise InputError(f"{ablation.name} has no {method} for a setting to go to; it has {_list(known)}")


def _list(names: Sequence[str] | set[str] | Mapping[str, Any]) -> str:
    return ", ".join(sorted(names))


def _plain(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-.")[:40].rstrip("-.")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _shared(rows: Sequence[Row]) -> list[Row]:
    """The same rows with one object for each model and detector: labels of equal ones may differ, keys must not."""
    models: dict[str, Model] = {}
    judges: dict[str, Judge] = {}
    found = []
    for row in rows:
        digest = row.judge.model.key.rsplit("-", 1)[1]
        model = models.setdefault(digest, row.judge.model)
        rest = row.judge.key[len(row.judge.model.key) :]
        judge = judges.setdefault(digest + rest, replace(row.judge, key=model.key + rest, model=model))
        found.append(replace(row, judge=judge))
    return found
