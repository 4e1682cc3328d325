"""A device that is not there: tensors that say they lie on it, and whose values the CPU computes.

It refuses what an accelerator refuses: operations that mix its tensors with the CPU's, numpy arrays of its tensors, and
random numbers from a CPU's generator. So a machine without one shows whether code keeps its tensors together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only

NAME = "pretend"
MOVES = ("aten::_to_copy", "aten::copy_")  # between devices
INDEXES = ("aten::index", "aten::index_put_", "aten::_index_put_impl_")  # take indices from anywhere, as on CUDA


class OnDevice(Tensor):
    """A tensor of the device. held: its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.held.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert a tensor of the device {NAME} to numpy")

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


def compute(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives where some of its tensors lie on the device; its result lies there too."""
    name = function._schema.name
    refuse_mixtures(name, tree_flatten((args, kwargs))[0])
    on_device = True
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    inner_args, inner_kwargs = tree_map_only(OnDevice, lambda value: value.held, (args, kwargs))
    found = function(*inner_args, **inner_kwargs)
    written = [
        value
        for value, argument in zip(args, function._schema.arguments, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if written and isinstance(found, Tensor) and isinstance(written[0], Tensor):
        return written[0]
    return tree_map_only(Tensor, OnDevice, found) if on_device else found


def refuse_mixtures(name: str, values: list[Any]) -> None:
    """Raise RuntimeError where an accelerator would: numbers without dimensions and indices may lie elsewhere."""
    for value in values:
        if isinstance(value, torch.Generator):
            raise RuntimeError(f"{name}: a generator of the CPU draws for the device {NAME}")
        strange = isinstance(value, Tensor) and not isinstance(value, OnDevice) and value.ndim > 0
        if strange and name not in MOVES and not (name in INDEXES and not value.is_floating_point()):
            raise RuntimeError(f"{name}: a tensor of the CPU, {tuple(value.shape)}, beside some of the device {NAME}")


def install() -> torch.device:
    """Make the device known to this process, for good; only once."""
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

    class Module(_DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    def empty(size: Any, dtype: Any = None, *_: Any, memory_format: Any = None, **__: Any) -> Tensor:
        return OnDevice(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))

    def empty_strided(size: Any, stride: Any, dtype: Any = None, *_: Any, **__: Any) -> Tensor:
        return OnDevice(torch.empty_strided(size, stride, dtype=dtype))

    def copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
        ours, theirs = (value.held if isinstance(value, OnDevice) else value for value in (target, source))
        ours.copy_(theirs)
        return target

    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    kernels = {"empty.memory_format": empty, "empty_strided": empty_strided, "_copy_from": copy_from}
    for operator, kernel in kernels.items():
        _library("aten").impl(operator, kernel, "PrivateUse1")
    _library("_").fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    return torch.device(NAME, 0)


_LIBRARIES: dict[str, torch.library.Library] = {}  # what they register ends with them


def _library(namespace: str) -> torch.library.Library:
    if namespace not in _LIBRARIES:
        _LIBRARIES[namespace] = torch.library.Library(namespace, "IMPL")
    return _LIBRARIES[namespace]
