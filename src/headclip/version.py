"""The one place that states the version, and those of what a result depends on."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def software_versions(*packages: str) -> dict[str, str]:
    """Versions of headclip, Python and those of `packages` that are installed under that name."""
    found = {"headclip": __version__, "python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):  # another build of it, such as onnxruntime-gpu or pillow-simd
            found[package] = version(package)
    return found
