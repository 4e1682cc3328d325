"""Reading weight files safely: safetensors, checkpoints and TorchScript archives without pickled code."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from headclip.clip.layouts import unwrap
from headclip.clip.torchscript import read_torchscript
from headclip.errors import BackboneError
from headclip.files import load_json

# In order of preference: safetensors holds numbers and nothing else.
HUGGINGFACE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
MAX_ENTRIES = 100_000  # of a zip-based weight file
MAX_PACKED = 16 << 20  # bytes of a compressed entry, unpacked; the code in OpenAI's archives is a few KB
MAX_JSON = 64 << 20  # bytes of a JSON file that is read whole
CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of one weight file, in the precision they are stored in, without a training wrapper.

    safetensors files and current checkpoints are mapped into memory, not copied. No code in a file is ever executed:
    checkpoints are read with `weights_only`, after a look whether their directory claims more than the file holds;
    of OpenAI's `.pt` files, which are TorchScript archives, only the tensors are read (see `torchscript`).

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
            content = read_torchscript(path)
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
        return bounded(unwrap(content))
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from error


def bounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors themselves, none of which repeats its values: made contiguous, it could be of any size.

    Raises:
        BackboneError: one does.
    """
    for name, value in state.items():
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise BackboneError(f"tensor {name} of shape {tuple(value.shape)} is larger than what the file holds of it")
    return state


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        check_archive(archive, path.stat().st_size)
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Whether the directory of a zip-based weight file is one that PyTorch writes: stored entries, as long together
    as the file itself. A crafted directory could otherwise ask for more memory than the file has bytes.

    Raises:
        ValueError: it is not; the message says why.
    """
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise ValueError(f"it lists {len(entries):,} entries, more than {MAX_ENTRIES:,}")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > MAX_PACKED:
            raise ValueError(f"its entry {entry.filename[:60]} is compressed, which PyTorch never does")
    total = sum(entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED)
    if total > size:
        raise ValueError(f"its entries say {total:,} bytes, and the file has {size:,}")


def _read_checkpoint(path: Path) -> Any:
    # Only the zip format can be mapped; files older than PyTorch 1.6 are read whole.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _read_shards(index: Path) -> dict[str, Tensor]:
    listed = read_json(index).get("weight_map", {})
    if not isinstance(listed, dict):
        raise BackboneError(f"{index} lists no weight files; download it again")
    names = listed.values()
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
        content = load_json(path, MAX_JSON)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read: {error}; download it again") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path} does not hold a JSON object; download it again")
    return content
