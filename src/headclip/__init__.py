"""headclip: zero-shot image anomaly detection with CLIP.

Example:
    >>> from headclip import Detector
    >>> detector = Detector()  # the embedded model; no download          # doctest: +SKIP
    >>> prediction = detector.predict(["part.png"])[0]                     # doctest: +SKIP
    >>> prediction.score, prediction.anomaly_map.shape                     # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headclip.version import __version__

if TYPE_CHECKING:  # type checkers see the names of `_WHERE` where they come from
    from headclip.clip.weights import load_backbone
    from headclip.data.datasets import datasets, open_dataset
    from headclip.errors import HeadclipError
    from headclip.inference.detector import Detector
    from headclip.inference.drawing import overlay
    from headclip.inference.exported import ExportedDetector
    from headclip.inference.leaving_out import calibrate_on_references
    from headclip.inference.predict import predict_run
    from headclip.inference.tiles import TiledDetector
    from headclip.methods import list_methods
    from headclip.prediction import Prediction

_WHERE = {
    "Detector": "headclip.inference.detector",
    "ExportedDetector": "headclip.inference.exported",
    "TiledDetector": "headclip.inference.tiles",
    "Prediction": "headclip.prediction",
    "HeadclipError": "headclip.errors",
    "load_backbone": "headclip.clip.weights",
    "datasets": "headclip.data.datasets",
    "open_dataset": "headclip.data.datasets",
    "list_methods": "headclip.methods",
    "calibrate_on_references": "headclip.inference.leaving_out",
    "overlay": "headclip.inference.drawing",
    "predict_run": "headclip.inference.predict",
}
__all__ = [
    "Detector",
    "ExportedDetector",
    "HeadclipError",
    "Prediction",
    "TiledDetector",
    "__version__",
    "calibrate_on_references",
    "datasets",
    "list_methods",
    "load_backbone",
    "open_dataset",
    "overlay",
    "predict_run",
]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that `import headclip` does not wait for torch."""
    if name in _WHERE:
        module = import_module(_WHERE[name])
        return getattr(module, name)
    raise AttributeError(f"module 'headclip' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
