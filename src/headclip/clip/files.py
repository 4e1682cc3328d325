"""Reading weight files safely: safetensors, checkpoints without pickled code, TorchScript archives."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from headclip.clip.layouts import unwrap
from headclip.errors import BackboneError

# In order of preference: safetensors holds numbers and nothing else.
HUGGINGFACE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of one weight file, in the precision they are stored in, without a training wrapper.

    safetensors files and current checkpoints are mapped into memory, not copied. Checkpoints are read with
    `weights_only`, so no pickled code runs. OpenAI's `.pt` files are TorchScript archives: they hold code for
    PyTorch's own interpreter, of which `torch.jit.load` runs only what rebuilds the modules, and no method is
    called here; still, read such archives only from a place that you trust.

    Raises:
        BackboneError: the file is missing, corrupt, cut short, or holds more than weights.
    """
    if not path.is_file():
        raise BackboneError(f"no weight file at {path}")
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        elif _is_torchscript(path):
            content = _read_torchscript(path)
        else:
            content = _read_checkpoint(path)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise BackboneError(
            f"{path} is corrupt, or holds Python objects besides weights, which are not loaded ({reason}); "
            "use a safetensors file, or a checkpoint that holds only the state dict"
        ) from error
    except Exception as error:  # bytes at random make the readers fail in many ways
        reason = str(error).split("\n")[0]
        raise BackboneError(f"{path} is corrupt or was cut short ({reason}); download it again") from error
    try:
        return unwrap(content)
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from error


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit announces its retirement; the archives stay as they are
        module = torch.jit.load(str(path), map_location="cpu")
    return dict(module.state_dict())


def _read_checkpoint(path: Path) -> Any:
    # Only the zip format can be mapped; files older than PyTorch 1.6 are read whole.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _read_shards(index: Path) -> dict[str, Tensor]:
    names = read_json(index).get("weight_map", {}).values()
    state: dict[str, Tensor] = {}
    for name in sorted({str(n) for n in names}):
        if Path(name).name != name:
            raise BackboneError(f"{index} names a file outside its folder: {name}")
        state |= read_state(index.parent / name)
    return state


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BackboneError: the file is missing or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read: {error}; download it again") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path} does not hold a JSON object; download it again")
    return content
