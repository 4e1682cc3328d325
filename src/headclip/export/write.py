"""Writing a graph in the format of an engine."""

from __future__ import annotations

import errno
import io
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.export import Dim, ExportedProgram

from headclip.errors import ExportError
from headclip.export.graph import ExportGraph
from headclip.inference.exported import OUTPUTS, Engine

_EXAMPLE = (2, 300, 410, 3)  # any size that is no special case: not square, not a multiple of a patch


def capture(graph: ExportGraph) -> ExportedProgram:
    """The graph as torch's own exported program, with batch, height and width left open.

    Raises:
        ExportError: this version of torch cannot capture it.
    """
    example = torch.from_numpy(np.random.default_rng(0).integers(0, 256, _EXAMPLE, dtype=np.uint8))
    dynamic = {"images": {axis: Dim(name) for axis, name in enumerate(("batch", "height", "width"))}}
    try:
        with torch.no_grad(), quietly():
            return torch.export.export(graph.eval(), (example,), dynamic_shapes=dynamic, strict=False)
    except Exception as error:
        raise ExportError(
            f"torch {torch.__version__} cannot capture this model as a graph ({_reason(error)}); "
            "use torch 2.13 or newer"
        ) from error


def write_graph(program: ExportedProgram, engine: Engine, folder: Path, name: str) -> list[Path]:
    """Write the files of a graph called `name` into `folder`; the first one is the one to name.

    Raises:
        ExportError: what the format needs is not installed, or cannot express the graph.
        OSError: the files cannot be written, as on a full disk.
    """
    path = folder / name
    try:
        with quietly():
            if engine == "torch":
                return [_write_torch(program, path)]
            if engine == "onnx":
                return _write_onnx(program, path)
            with TemporaryDirectory(dir=folder) as scratch:
                return _write_openvino(_write_onnx(program, Path(scratch) / "model.onnx")[0], path)
    except ImportError as error:
        raise ExportError(
            f"--to {engine} needs {error.name or 'more packages'}; install it with `pip install 'headclip[{engine}]'`"
        ) from error
    except (ExportError, OSError):
        raise
    except Exception as error:
        if shutil.disk_usage(folder).free < _weight_bytes(program):  # engines have other words for it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise ExportError(f"this model cannot be written for {engine}: {_reason(error)}") from error


def _write_torch(program: ExportedProgram, path: Path) -> Path:
    """By way of memory: where its own writer meets a full disk, it ends the process."""
    content = io.BytesIO()
    torch.export.save(program, content)
    with path.open("wb") as handle:
        handle.write(content.getbuffer())
    return path


def _write_onnx(program: ExportedProgram, path: Path) -> list[Path]:
    import onnx  # noqa: F401 - named first, so that its absence is told as such
    import onnxscript  # noqa: F401

    found = torch.onnx.export(
        program, dynamo=True, input_names=["images"], output_names=list(OUTPUTS), verbose=False, external_data=False
    )
    if found is None:
        raise ExportError("torch's exporter returned nothing; use torch 2.13 or newer")
    large = _is_large(program)
    found.save(str(path), external_data=large)
    return [path, path.with_name(f"{path.name}.data")] if large else [path]


def _is_large(program: ExportedProgram) -> bool:
    """Whether the weights exceed what one protobuf file holds (2 GB)."""
    return _weight_bytes(program) > 1_900_000_000


def _weight_bytes(program: ExportedProgram) -> int:
    return sum(value.numel() * value.element_size() for value in program.state_dict.values())


def _write_openvino(source: Path, path: Path) -> list[Path]:
    import openvino

    model = openvino.convert_model(str(source))
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


@contextmanager
def quietly() -> Iterator[None]:
    """Without the exporters' chatter about packages that nobody needs here."""
    chatty = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch.fx")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}"
