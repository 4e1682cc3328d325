"""From options to loaded models: one detector, several on one backbone, or a method to train."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headclip.cli.common import counted, parse_settings, progress_output

if TYPE_CHECKING:
    from headclip.clip.backbone import Backbone
    from headclip.inference.detector import Detector
    from headclip.methods.base import TrainableMethod


@dataclass(frozen=True)
class Choice:
    """One method to judge with.

    label: what tables call it; method: None where only the checkpoint knows; named: whether the user gave the label.
    """

    label: str
    method: str | None = None
    checkpoint: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False


def plan_methods(methods: str | None, checkpoints: Sequence[str], settings: Sequence[str]) -> list[Choice]:
    """What `--method A,B`, `--checkpoint [NAME=]FILE` and `--set [METHOD.]NAME=VALUE` ask for, in order.

    A checkpoint belongs to the method that it says it is of; those of methods that --method does not name are an
    error, and without --method every checkpoint is one choice. NAME is a method's name, or the label of the choice.

    Raises:
        InputError: an unknown or doubled name, a setting that a method does not have; each says what would be right.
        CheckpointError: no checkpoint, or one that cannot be read.
    """
    from headclip.errors import InputError
    from headclip.methods.base import method_class

    names = [name.strip() for name in methods.split(",") if name.strip()] if methods is not None else []
    if methods is not None and not names:
        raise InputError("--method names nothing; headclip methods lists what there is")
    for name in names:
        method_class(name)  # an unknown one is an error that lists all
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"--method names {', '.join(twice)} twice; to compare two trainings of one method, name it once and give "
            "--checkpoint A=FILE --checkpoint B=FILE"
        )
    found = [_read_checkpoint(spec, names) for spec in checkpoints]
    stray = next((choice for choice in found if names and choice.method not in names), None)
    if stray is not None:
        raise InputError(
            f"{stray.checkpoint} is a checkpoint of {stray.method}, but --method asks for {', '.join(names)}; "
            f"add {stray.method} to --method, or leave --method out"
        )
    choices: list[Choice] = []
    for name in names:
        choices += [choice for choice in found if choice.method == name] or [Choice("", name)]
    return _with_settings(_label(choices or found or [Choice("")]), settings)


def _read_checkpoint(spec: str, names: Sequence[str]) -> Choice:
    """FILE or NAME=FILE; the label stays empty unless NAME is one."""
    from headclip.errors import CheckpointError, InputError
    from headclip.methods import list_methods
    from headclip.methods.checkpoint import OFFICIAL_SUFFIXES, read_info

    prefix, sign, rest = spec.partition("=")
    named = bool(sign) and bool(prefix.strip()) and not Path(spec).is_file()
    name, path = (prefix.strip(), Path(rest)) if named else ("", Path(spec))
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; give FILE, or NAME=FILE with the method or a name of your own")
    is_method = name in list_methods()
    label = "" if is_method else name
    if path.suffix not in OFFICIAL_SUFFIXES:
        method = read_info(path).method
        if is_method and method != name:
            raise InputError(f"{path} is a checkpoint of {method}, not of {name}")
        return Choice(label, method, path)
    if is_method:
        return Choice(label, name, path)
    if len(names) > 1:
        raise InputError(f"{path} does not say which method it belongs to; write --checkpoint METHOD={path}")
    return Choice(label, names[0] if names else None, path)


def _label(choices: Sequence[Choice]) -> list[Choice]:
    """Each choice under a name of its own: as given, else its method, with the file's name where that is not enough.

    Raises:
        InputError: two have the same name even so.
    """
    from headclip.errors import InputError

    methods = Counter(choice.method for choice in choices)
    labelled = []
    for choice in choices:
        label = choice.label or choice.method or (choice.checkpoint.stem if choice.checkpoint else "headclip")
        if not choice.label and methods[choice.method] > 1 and choice.checkpoint is not None:
            label = f"{choice.method} ({choice.checkpoint.stem})" if choice.method else choice.checkpoint.stem
        labelled.append(replace(choice, label=label, named=bool(choice.label)))
    twice = [label for label, count in Counter(choice.label for choice in labelled).items() if count > 1]
    if twice:
        raise InputError(f"two checkpoints would be called {twice[0]}; name them: --checkpoint A=FILE")
    return labelled


def _with_settings(choices: Sequence[Choice], given: Sequence[str]) -> list[Choice]:
    """Settings go to every choice, those with a prefix to the choices of that label or method.

    Raises:
        InputError: the prefix is none of them, or one of several methods does not have a setting meant for all.
    """
    from headclip.errors import InputError

    settings: list[dict[str, Any]] = [{} for _ in choices]
    for full, value in parse_settings(list(given)).items():
        owner, dot, name = full.rpartition(".")
        chosen = [i for i, choice in enumerate(choices) if not dot or owner in (choice.label, choice.method)]
        if not chosen:
            known = ", ".join(dict.fromkeys(choice.label for choice in choices))
            raise InputError(f"--set {full}: there is no {owner} here; before the dot stands one of {known}")
        for i in chosen:
            if not dot and len(choices) > 1 and name not in _fields(choices[i]):
                able = [choice.label for choice in choices if name in _fields(choice)]
                advice = f"for {able[0]} alone, write --set {able[0]}.{name}=..." if able else "no method here has it"
                raise InputError(f"--set {name}: {choices[i].label} has no such setting; {advice}")
            settings[i][name] = value
    return [replace(choice, settings=values) for choice, values in zip(choices, settings, strict=True)]


def _fields(choice: Choice) -> set[str]:
    from dataclasses import fields

    from headclip.methods.base import method_class

    return {item.name for item in fields(method_class(choice.method or "headclip").config_class)}


def load_detector(arguments: Mapping[str, Any], quiet: bool) -> Any:
    """One detector, from arguments by the names of the options; `settings` are parsed already.

    An exported model as the checkpoint runs in its own engine; `tile`, if there, is the overlap of tiles.
    """
    with _loading(arguments["backbone"], quiet):
        from headclip.inference.detector import Detector
        from headclip.inference.exported import is_exported
        from headclip.inference.tiles import TiledDetector

        detector: Any
        if is_exported(arguments["checkpoint"]):
            detector = _load_exported(arguments)
        else:
            chosen: dict[str, Any] = {name: arguments.get(name) for name in ("method", "category", "settings", "roi")}
            chosen = {name: value for name, value in chosen.items() if value not in (None, {})}
            if arguments["reference"] is not None:
                chosen["references"] = reference_images(arguments["reference"])
            detector = Detector(arguments["backbone"], arguments["checkpoint"], **_computation(arguments), **chosen)
        return detector if arguments.get("tile") is None else TiledDetector(detector, arguments["tile"])


def _load_exported(arguments: Mapping[str, Any]) -> Any:
    """An exported model; options that would change what is fixed in it are errors.

    Raises:
        InputError: such an option is given.
    """
    from headclip.errors import InputError
    from headclip.inference.exported import ExportedDetector

    fixed = ("method", "category", "settings", "reference", "image_size", "compile")
    given = [name for name in fixed if arguments.get(name) not in (None, {}, False)]
    if given or arguments["backbone"] != "embedded":
        names = ", ".join(f"--{name.replace('settings', 'set').replace('_', '-')}" for name in given or ["backbone"])
        raise InputError(
            f"{names}: {arguments['checkpoint']} is an exported model, in which that is fixed; "
            "leave it out, or give it to `headclip export`"
        )
    return ExportedDetector(
        arguments["checkpoint"],
        device=arguments["device"],
        precision=arguments["precision"],
        batch_size=arguments["batch_size"],
        roi=arguments.get("roi"),
    )


def load_detectors(choices: Sequence[Choice], arguments: Mapping[str, Any], quiet: bool) -> dict[str, Detector]:
    """A detector for each choice, by label, all on one loaded backbone, so that they can share the vision pass.

    References go to the methods that take them.

    Raises:
        InputError: none of the methods takes references.
    """
    from headclip.errors import InputError
    from headclip.methods import list_methods
    from headclip.methods.base import method_class

    references = None
    if arguments["reference"] is not None:
        able = [name for name in list_methods() if method_class(name).takes_references]
        if not any(choice.method is None or choice.method in able for choice in choices):
            raise InputError(
                f"--reference: none of {', '.join(choice.label for choice in choices)} has a few-shot variant; "
                f"methods that do: {', '.join(able)}"
            )
        references = reference_images(arguments["reference"])
    with _loading(arguments["backbone"], quiet):
        from headclip.clip.weights import load_backbone
        from headclip.inference.detector import Detector

        backbone = load_backbone(arguments["backbone"])
        found: dict[str, Detector] = {}
        for choice in choices:
            detector = found[choice.label] = Detector(
                backbone,
                choice.checkpoint,
                method=choice.method,
                settings=choice.settings,
                **_computation(arguments),
            )
            if references is not None and detector.method.takes_references:
                detector.set_references(references)
        return found


def reference_images(folder: str | Path) -> list[Path]:
    """Files of normal images, at most `MOST_REFERENCES` of a folder; what is left out is said on stderr.

    Raises:
        InputError: none can be read.
    """
    import warnings

    from headclip.data.discover import discover
    from headclip.errors import HeadclipError, InputError
    from headclip.inference.peers import pick_references

    advice = "give a folder with images of normal parts"
    try:
        images = discover([str(folder)]).files
    except HeadclipError as error:
        raise InputError(f"--reference {folder}: {error}; {advice}") from error
    found, broken = pick_references(images)
    for name, reason in broken.items():
        warnings.warn(f"--reference: {name} is left out: {reason}", stacklevel=2)
    if not found:
        raise InputError(f"--reference {folder}: none of its {counted(len(images), 'image')} can be read; {advice}")
    if len(found) < len(images) - len(broken):
        warnings.warn(f"--reference: {len(found)} of {len(images):,} images are compared with, by chance", stacklevel=2)
    return found


def build_trainable(
    name: str, backbone: str, device: str, seed: int, settings: Sequence[str], start: Path | None = None
) -> tuple[TrainableMethod, dict[str, Any]]:
    """A method to be trained, with first values from the seed, or with settings and values of the checkpoint `start`;
    and what it has been trained on before, `data` of that checkpoint.

    Raises:
        InputError: an unknown method or setting, or one that learns nothing; a checkpoint of another method.
        CheckpointError: it cannot be read, or does not fit the backbone.
    """
    from dataclasses import fields

    from headclip.clip.weights import load_backbone
    from headclip.errors import InputError
    from headclip.inference.device import choose_device
    from headclip.methods import TrainableMethod, create_method, list_methods
    from headclip.methods.base import method_class

    cls = method_class(name)
    if not issubclass(cls, TrainableMethod):
        able = [other for other in list_methods() if issubclass(method_class(other), TrainableMethod)]
        raise InputError(
            f"{name} learns nothing, so there is nothing to train; use it with `headclip predict --method {name}`. "
            f"Methods that learn: {', '.join(able)}"
        )
    values = parse_settings(list(settings))
    loaded = load_backbone(backbone, device=choose_device(device))
    if start is not None:
        return _start_from(start, name, loaded, values)
    if "seed" in {item.name for item in fields(cls.config_class)}:
        values = {"seed": seed, **values}
    method = create_method(name, loaded, values)
    assert isinstance(method, TrainableMethod)
    return method, {}


def _start_from(
    start: Path, name: str, backbone: Backbone, values: Mapping[str, Any]
) -> tuple[TrainableMethod, dict[str, Any]]:
    """The method as a checkpoint has it, and what it was trained on."""
    from headclip.errors import InputError
    from headclip.methods import TrainableMethod
    from headclip.methods.checkpoint import OFFICIAL_SUFFIXES, load_checkpoint, read_info

    known = None if start.suffix in OFFICIAL_SUFFIXES else read_info(start).method
    if known in (None, name):
        method, info = load_checkpoint(start, backbone, values)
        known = info.method
    if known != name:
        raise InputError(f"{start} is a checkpoint of {known}, not of {name}; use --method {known}")
    assert isinstance(method, TrainableMethod)
    method.train()
    return method, info.data


def lift_pillow_limit(max_pixels: int) -> None:
    """Some of Pillow's decoders have a fixed limit of their own; the user has just set a larger one."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = None


def _computation(arguments: Mapping[str, Any]) -> dict[str, Any]:
    chosen = {name: arguments[name] for name in ("device", "precision", "image_size", "batch_size")}
    return chosen | ({"compile": True} if arguments.get("compile") else {})


def _loading(backbone: str, quiet: bool) -> AbstractContextManager[Any]:
    return nullcontext() if quiet else progress_output().status(f"loading {backbone}")
