"""Checkpoints: what a method learnt, and everything needed to know whether it fits and where it came from."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from headclip.clip.backbone import Backbone
from headclip.errors import CheckpointError
from headclip.files import write_atomically
from headclip.methods.base import Method, create_method
from headclip.version import __version__

FORMAT = "headclip-checkpoint-1"


def software_versions() -> dict[str, str]:
    return {
        "headclip": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@dataclass
class CheckpointInfo:
    """Metadata of a checkpoint.

    training: settings of the run that made it, with the seed. data: name and fingerprint of the training set.
    calibration: thresholds, once somebody calibrated. versions: of the software that wrote it.
    """

    method: str
    config: dict[str, Any]
    backbone: str
    backbone_hash: str
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=software_versions)


def save_checkpoint(
    path: Path,
    method: Method,
    *,
    training: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
) -> CheckpointInfo:
    """Write what `method` learnt as safetensors, atomically."""
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
    content = save(tensors, metadata={"format": FORMAT, "headclip": json.dumps(asdict(info), sort_keys=True)})
    write_atomically(path, content)
    return info


def read_info(path: Path) -> CheckpointInfo:
    """The metadata alone.

    Raises:
        CheckpointError: no such file, not a checkpoint of this project, or damaged.
    """
    return _open(path)[0]


def load_checkpoint(path: Path, backbone: Backbone) -> tuple[Method, CheckpointInfo]:
    """The method with its learnt values, on the backbone that it was trained on.

    Raises:
        CheckpointError: unreadable, or made for another backbone; the message names both.
    """
    info, tensors = _open(path)
    if info.backbone_hash != backbone.hash:
        raise CheckpointError(
            f"{path} was trained on backbone '{info.backbone}' (weights {info.backbone_hash[:12]}), but this is "
            f"'{backbone.name}' (weights {backbone.hash[:12]}); use --backbone {info.backbone} or train again"
        )
    method = create_method(info.method, backbone, info.config)
    try:
        method.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not hold what {info.method} needs: {error}") from error
    return method.to(backbone.device).eval(), info


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
    try:
        return CheckpointInfo(**json.loads(metadata["headclip"])), tensors
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has damaged metadata: {error}") from error
