"""The tensors of a TorchScript archive (OpenAI's `.pt` files), without PyTorch's interpreter and without its code.

An archive is a zip file: `data.pkl` describes the modules, `data/N` holds the values of one storage, `code/` the
programs, which are not looked at. `data.pkl` is a pickle, and here it is read by an unpickler that knows a handful of
names. Classes of the model become empty shells; a name that it does not know is an error. So nothing in the file is
ever executed, whoever made it.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DEPTH = 64  # of modules within modules


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Every tensor that a module of the archive holds, by its dotted name.

    Raises:
        pickle.UnpicklingError: the archive asks for something else than modules and tensors.
        Exception: it is damaged; zip and pickle fail in many ways.
    """
    with zipfile.ZipFile(path) as archive:
        (description,) = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        root = description.removesuffix("data.pkl")
        with archive.open(description) as handle:
            module = _Reader(handle, archive, root).load()
    found: dict[str, Tensor] = {}
    _collect(module, "", found, _DEPTH)
    return found


class _Module:
    """The shell of a module: what it held, by name."""

    def __init__(self, *_: Any) -> None:
        self.held: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.held = state if isinstance(state, dict) else {}


class _Reader(pickle.Unpickler):
    """Knows modules, tensors and lists, and nothing else."""

    def __init__(self, handle: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(handle)
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
            return _first
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Tensor:
        """The values of a storage, (n,)."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"it asks for a {kind}")
        if key not in self._storages:
            content = bytearray(self._archive.read(f"{self._root}data/{key}"))
            values = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            if len(values) < count:
                raise ValueError(f"storage {key} has {len(values)} values instead of {count}")
            self._storages[key] = values
        return self._storages[key]


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    """A tensor of a storage. One that repeats values is refused: made contiguous, it could be of any size."""
    if math.prod(size) > len(storage):
        raise ValueError(f"a tensor of shape {tuple(size)} is larger than its storage of {len(storage)} values")
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _collect(module: Any, prefix: str, found: dict[str, Tensor], depth: int) -> None:
    if not isinstance(module, _Module) or depth == 0:
        raise ValueError("its modules are nested in a strange way")
    for name, value in module.held.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{name}"] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", found, depth - 1)
