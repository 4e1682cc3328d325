"""`headclip doctor`: what is installed, and what `auto` will choose."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from headclip.cli.common import output
from headclip.version import __version__

# extra: (module to look for, what it is for)
EXTRAS = {
    "hub": ("huggingface_hub", "fetches backbones by hub id"),
    "demo": ("elpv_dataset", "the real images of make demo"),
    "serve": ("fastapi", "pages and the REST server of headclip serve"),
    "plots": ("matplotlib", "curves and diagrams of headclip evaluate, ablate and compare"),
    "onnx": ("onnxruntime", "exports to ONNX, and runs them"),
    "openvino": ("openvino", "exports to OpenVINO, and runs them"),
    "dicom": ("pydicom", "reads DICOM"),
    "nifti": ("nibabel", "reads NIfTI"),
    "heic": ("pillow_heif", "reads HEIC photographs"),
    "ray": ("ray", "headclip predict --engine ray"),
}


def doctor() -> None:
    """Say what is installed, which device and precision will be used, and whether weights are there."""
    from rich.table import Table

    sections = {
        "Software": _software(),
        "Device": _device(),
        "Weights": _weights(),
        "Optional": _extras(),
    }
    console = output()
    for title, facts in sections.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(min_width=18)
        table.add_column(overflow="fold")
        for label, value in facts:
            table.add_row(label, value)
        console.print(table)


def _software() -> Iterator[tuple[str, str]]:
    import torch

    yield "headclip", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform(terse=True)}"
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} thread(s) on {_cores()} core(s)"


def _device() -> Iterator[tuple[str, str]]:
    import torch

    from headclip.clip.hardware import has_fast_bf16, has_fast_int8
    from headclip.inference.device import (
        LARGE_TOWER,
        choose_device,
        choose_precision,
        precision_name,
    )

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield f"cuda:{index}", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
        yield "bf16", "supported" if has_fast_bf16(torch.device("cuda")) else "not supported"
    elif torch.version.cuda is None:
        yield "CUDA", "not available; this torch is built without it"
    else:
        yield "CUDA", f"not available; torch is built for CUDA {torch.version.cuda} but finds no usable GPU"
    device = choose_device("auto")
    large = f", bf16 for towers of {LARGE_TOWER / 1e6:.0f} M parameters and more"
    only_large = large if device.type == "cpu" and has_fast_bf16(device) else ""
    yield "auto device", str(device)
    yield "int8", "supported (--precision int8)" if has_fast_int8() else "not supported: no AVX-512 VNNI or AMX"
    yield "auto precision", precision_name(choose_precision("auto", device)) + only_large


def _weights() -> Iterator[tuple[str, str]]:
    from headclip.clip.hub import is_complete
    from headclip.clip.weights import EMBEDDED

    if is_complete(EMBEDDED):
        size = sum(file.stat().st_size for file in EMBEDDED.rglob("*") if file.is_file())
        yield "embedded model", f"there, {size / 1e6:.1f} MB in {EMBEDDED}"
    else:
        yield "embedded model", f"missing in {EMBEDDED}; reinstall the package or pass --backbone"
    cache = _hub_cache()
    models = sorted(folder.name.removeprefix("models--") for folder in cache.glob("models--*"))
    found = ", ".join(name.replace("--", "/") for name in models if "clip" in name.lower())
    yield "Hugging Face cache", f"{cache}: {found or 'no CLIP model'}"
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        yield "HF_HUB_OFFLINE", "set; nothing will be downloaded"


def _extras() -> Iterator[tuple[str, str]]:
    from importlib.util import find_spec

    for extra, (module, purpose) in EXTRAS.items():
        missing = f"not installed; pip install 'headclip[{extra}]'"
        yield extra, f"{'installed' if find_spec(module) else missing} ({purpose})"


def _hub_cache() -> Path:
    """Where huggingface_hub keeps models, by its documented environment variables."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def _cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
