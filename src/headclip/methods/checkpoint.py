"""Checkpoints: what a method learnt, and everything needed to know whether it fits and where it came from."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from headclip.clip.backbone import Backbone
from headclip.clip.files import check_archive
from headclip.data.reading import some
from headclip.errors import CheckpointError, InputError
from headclip.files import file_hash, write_atomically
from headclip.methods.base import Method, create_method, list_methods, method_class
from headclip.version import software_versions

FORMAT = "headclip-checkpoint-1"
TEXT = "text_vectors"  # (1, 2, E): kept beside what was learnt, so that the text tower need not run
OFFICIAL_SUFFIXES = (".pth", ".pt")
_KINDS = {"method": str, "backbone": str, "backbone_hash": str, "text": str} | dict.fromkeys(
    ("config", "training", "data", "calibration", "versions"), dict
)


@dataclass
class CheckpointInfo:
    """Metadata of a checkpoint.

    training: settings of the run that made it, with the seed. data: name and fingerprint of the training set.
    calibration: thresholds, once somebody calibrated. versions: of the software that wrote it. text: of what the kept
    text vectors were made (SHA-256, hex); "" without any.
    """

    method: str
    config: dict[str, Any]
    backbone: str
    backbone_hash: str
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: software_versions("torch", "numpy"))
    text: str = ""


def save_checkpoint(
    path: Path,
    method: Method,
    *,
    training: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
) -> CheckpointInfo:
    """Write what `method` learnt as safetensors, atomically; with its text vectors, where it has `text_settings`."""
    backbone = method.backbone
    info = CheckpointInfo(
        method=method.name,
        config=method.config_dict(),
        backbone=backbone.name,
        backbone_hash=backbone.hash,
        training=training or {},
        data=data or {},
        calibration=calibration or {},
    )
    tensors = {name: value.detach().cpu().contiguous() for name, value in method.state_dict().items()}
    info, tensors = _with_text(info, tensors, method)
    write_atomically(path, _encode(info, tensors), follow=True)
    return info


def _with_text(
    info: CheckpointInfo, tensors: dict[str, torch.Tensor], method: Method
) -> tuple[CheckpointInfo, dict[str, torch.Tensor]]:
    """Metadata and learnt tensors with the method's text vectors, if those depend on nothing else."""
    if not method.text_settings:
        return info, tensors
    with torch.no_grad():
        vectors = method.text_vectors().detach().float().cpu().contiguous()  # (1, 2, E)
    return replace(info, text=_text_key(info.backbone_hash, method, tensors)), {**tensors, TEXT: vectors}


def _text_key(backbone_hash: str, method: Method, learnt: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of all that text vectors depend on: backbone, settings, learnt values."""
    config = method.config_dict()
    facts = [method.name, backbone_hash, {name: config[name] for name in method.text_settings}]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + save(dict(learnt))).hexdigest()


def add_text_vectors(path: Path, backbone: Backbone) -> CheckpointInfo:
    """Put text vectors into a checkpoint that has none, atomically; what was learnt and its hash stay as they are.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    method, _ = load_checkpoint(path, backbone)
    info, tensors = _open(path)
    tensors.pop(TEXT, None)
    info, tensors = _with_text(info, tensors, method)
    write_atomically(path, _encode(info, tensors), follow=True)
    return info


def _encode(info: CheckpointInfo, tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The content of a checkpoint file. safetensors has no check sum, so that of the tensors is added."""
    facts = {"format": FORMAT, "headclip": json.dumps(asdict(info), sort_keys=True), "sha256": _content(tensors)}
    return save(dict(tensors), metadata=facts)


def _content(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over names, types, shapes and values."""
    return hashlib.sha256(save(dict(tensors))).hexdigest()


def write_calibration(path: Path, calibration: Mapping[str, Any]) -> CheckpointInfo:
    """Put a calibration into the metadata of a checkpoint, atomically; all else stays as it is.

    Raises:
        CheckpointError: no such file, not a checkpoint of this project, or damaged.
    """
    info, tensors = _open(path)
    info = replace(info, calibration=dict(calibration))
    write_atomically(path, _encode(info, tensors), follow=True)
    return info


def learnt_hash(path: Path) -> str:
    """SHA-256 (hex) of a checkpoint without its calibration and text vectors: what is put into it later, or follows
    from the rest, does not change it.

    Other files than those of this project are hashed as they are.
    """
    try:
        info, tensors = _open(path)
    except CheckpointError:
        return file_hash(path)
    facts = {key: value for key, value in asdict(info).items() if key not in ("calibration", "text")}
    tensors.pop(TEXT, None)
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + save(tensors)).hexdigest()


def read_info(path: Path) -> CheckpointInfo:
    """The metadata alone.

    Raises:
        CheckpointError: no such file, not a checkpoint of this project, or damaged.
    """
    return _open(path)[0]


def load_checkpoint(
    path: Path, backbone: Backbone, settings: Mapping[str, Any] | None = None
) -> tuple[Method, CheckpointInfo]:
    """The method with its learnt values, on the backbone that it was trained on.

    A `.pth` or `.pt` file is taken for one that a method's authors published; its backbone is checked by shapes
    alone.

    Args:
        settings: fields of the method's configuration to change, such as alpha or sigma.

    Raises:
        CheckpointError: unreadable, or made for another backbone; the message names both.
        InputError: a setting that the method does not have.
    """
    if path.suffix in OFFICIAL_SUFFIXES:
        return _load_official(path, backbone, settings)
    info, tensors = _open(path)
    if info.backbone_hash != backbone.hash:
        raise CheckpointError(
            f"{path} was trained on backbone '{info.backbone}' (weights {info.backbone_hash[:12]}), but this is "
            f"'{backbone.name}' (weights {backbone.hash[:12]}); use --backbone {info.backbone} or train again"
        )
    method = create_method(info.method, backbone, {**info.config, **(settings or {})})
    vectors = tensors.pop(TEXT, None)
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold what {info.method} needs{' with these settings' if settings else ''} "
            f"({_mismatch(method, tensors)}); " + ("change fewer of them" if settings else "it is damaged; train again")
        ) from error
    method.asked_size = (settings or {}).get("image_size")  # the size that it was trained at does not bind
    if settings:
        _check_layers(path, info, method)
    method = method.to(backbone.device).eval()
    if (
        vectors is not None
        and vectors.shape == (1, 2, backbone.config.embed_dim)
        and info.text == _text_key(backbone.hash, method, tensors)
    ):
        method.keep_text(vectors)
    return method, info


def _check_layers(path: Path, info: CheckpointInfo, method: Method) -> None:
    """Raise CheckpointError where settings move what was learnt for some layers to others."""
    before = create_method(info.method, method.backbone, info.config).learnt_layers()
    for name, layers in method.learnt_layers().items():
        if before.get(name, layers) != layers:
            raise CheckpointError(
                f"{path} learnt {name} for layers {_shown(before[name])}, and with these settings they would stand for "
                f"{_shown(layers)}; leave these as they are, or train again"
            )


def _shown(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers)) or "none"


def _mismatch(method: Method, tensors: Mapping[str, torch.Tensor]) -> str:
    """In what stored values differ from those that a method has, by name."""
    wanted = {name: tuple(value.shape) for name, value in method.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    parts = [f"no {name}" for name in wanted if name not in given]
    parts += [f"{name} beyond them" for name in given if name not in wanted]
    both = [name for name in wanted if name in given and wanted[name] != given[name]]
    parts += [f"{name} of shape {given[name]} in place of {wanted[name]}" for name in both]
    return some(parts)


def _load_official(path: Path, backbone: Backbone, settings: Mapping[str, Any] | None) -> tuple[Method, CheckpointInfo]:
    """The method whose published checkpoint `path` is; no code in the file is ever executed."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_archive(archive, path.stat().st_size)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the damage leads to
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} cannot be read as plain tensors: {reason}") from error
    if isinstance(content, Mapping):
        for name in list_methods():
            try:
                method = method_class(name).from_official(content, backbone, settings)
            except (CheckpointError, InputError) as error:
                raise type(error)(f"{path}: {error}") from error
            if method is not None:
                method.asked_size = (settings or {}).get("image_size")
                info = CheckpointInfo(name, method.config_dict(), backbone.name, backbone.hash, {"source": "official"})
                return method.to(backbone.device).eval(), info
    raise CheckpointError(
        f"{path} is not a published checkpoint that headclip knows; `headclip train` writes .safetensors files"
    )


def _open(path: Path) -> tuple[CheckpointInfo, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a safetensors file or is damaged: {error}") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a headclip checkpoint; `headclip train` writes them")
    if metadata.get("sha256") not in (None, _content(tensors)):  # None: written before there was one
        raise CheckpointError(
            f"{path} is damaged: its values do not match their check sum; take a sound copy, or train again"
        )
    try:
        info = CheckpointInfo(**json.loads(metadata["headclip"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has damaged metadata: {error}") from error
    for name, kind in _KINDS.items():
        if not isinstance(getattr(info, name), kind):
            raise CheckpointError(f"{path} has damaged metadata: '{name}' is no {kind.__name__}")
    return info, tensors
