"""Running what `headclip export` wrote, with the interface of `Detector`: no backbone, no checkpoint, one file.

Beside the graph lies its side file, `NAME.json`: which model it is, what goes in and comes out, what the check against
the eager model found, and the calibration, since no threshold is in the graph.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from headclip.clip.preprocess import input_size
from headclip.errors import CheckpointError, ExportError, InputError
from headclip.files import file_hash, load_json, write_atomically
from headclip.inference.base import BaseDetector
from headclip.inference.deciding import Thresholds, criteria_of
from headclip.inference.detector import EXPORT_SUFFIXES
from headclip.inference.device import Precision, parse_device
from headclip.inference.given import (
    batches_of_one_size,
    check_arrays,
    check_batch_size,
)
from headclip.inference.roi import Roi, judged_within
from headclip.inference.signal_stack import kept_signal_stack
from headclip.methods.base import Method, method_class
from headclip.prediction import Prediction

FORMAT = "headclip-export-1"
Engine = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[Engine, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
OUTPUTS = ("anomaly_map", "score", "global_score", "local_score")
Runner = Callable[[np.ndarray], Sequence[np.ndarray]]

PASS_PATCHES = 8_000  # of an engine: it gains nothing from more


@dataclass(frozen=True)
class ExportFacts:
    """Content of a side file.

    files: name -> SHA-256 of each file of the graph. model: `Detector.describe()` of the detector exported, with its
    calibration. patch: side of a patch in pixels. uses_category: whether the text vectors are those of a category.
    interface: what goes in and comes out, in words. parity: the report of the check. versions: of the software.
    """

    engine: Engine
    files: dict[str, str]
    model: dict[str, Any]
    patch: int
    interface: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def save(self, graph: Path) -> None:
        """Write the side file of `graph`."""
        write_atomically(side_file(graph), json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, graph: Path) -> ExportFacts:
        """Read the side file of `graph` and see that both belong together.

        Raises:
            CheckpointError: one of the files is missing, damaged or of another export.
        """
        if not graph.is_file():
            raise CheckpointError(f"no exported model at {graph}; `headclip export` writes them")
        path = side_file(graph)
        if not path.is_file():
            raise CheckpointError(f"{graph} has no side file {path.name} beside it; copy both, or export again")
        try:
            content = load_json(path)
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            facts = cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path} is damaged or not a side file of an export: {error}") from error
        for name, digest in facts.files.items():
            part = graph.parent / name
            if not part.is_file() or file_hash(part) != digest:
                raise CheckpointError(f"{part} is missing or not the file that {path.name} describes; export again")
        return facts


def side_file(graph: Path) -> Path:
    """Where the facts of an exported graph lie."""
    return graph.with_name(f"{graph.name}.json")


def is_exported(path: str | Path | None) -> bool:
    """Whether a checkpoint's name is that of an exported model."""
    return path is not None and Path(path).suffix in EXPORT_SUFFIXES


class ExportedDetector(BaseDetector):
    """Scores images with an exported model; the interface is that of `Detector`.

    Args:
        path: what `headclip export` wrote: `.onnx` for ONNX Runtime, `.xml` (with its `.bin`) for OpenVINO, `.pt2` for
            torch. An `.onnx` file runs with OpenVINO too, if `engine` says so.
        device: "auto" and "cpu" compute on the CPU; "cuda" needs ONNX Runtime's build for it.
        precision: "auto" is fp32, in which the file was checked; "bf16" is OpenVINO's own default on CPUs that have
            it, faster and less exact.
        batch_size: images a pass; None chooses by the number of patches.
        threads: of the engine; None leaves it to the engine.
        calibration, roi: as of `Detector`.

    Raises:
        CheckpointError: the file or its side file is missing, damaged or of another export.
        ExportError: the engine is not installed, or cannot run the file.
        InputError: a device or precision that the engine does not have.

    Example:
        >>> detector = ExportedDetector("model.onnx")                       # doctest: +SKIP
        >>> detector.predict(["part.png"])[0].score                         # doctest: +SKIP
    """

    def __init__(
        self,
        path: str | Path,
        *,
        engine: Engine | None = None,
        device: str = "auto",
        precision: Precision | Literal["auto"] = "auto",
        batch_size: int | None = None,
        threads: int | None = None,
        calibration: Thresholds | None = None,
        roi: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.roi = None if roi is None else Roi.parse(roi)
        self.facts = ExportFacts.load(self.path)
        self.engine: Engine = engine or self.facts.engine
        if self.engine != self.facts.engine and (self.facts.engine, self.engine) != ("onnx", "openvino"):
            raise InputError(f"{self.path} was exported for {self.facts.engine} and does not run with {self.engine}")
        self.precision: Precision = "fp32" if precision == "auto" else precision
        if self.precision == "int8" or (self.precision != "fp32" and self.engine != "openvino"):
            able = "fp32 or bf16" if self.engine == "openvino" else "fp32"
            raise InputError(f"an exported model runs with {self.engine} in {able}; leave --precision {precision} out")
        self.device = "cpu" if device == "auto" else device
        if parse_device(self.device).type != "cpu" and self.engine != "onnx":
            raise InputError(f"an exported model runs with {self.engine} on the CPU; leave --device {device} out")
        model = self.facts.model
        self.method: type[Method] = method_class(model["method"])
        self.category: str | None = model["category"]
        self.image_size, self.keep_aspect = int(model["image_size"]), bool(model["keep_aspect"])
        self.least_side = float(model.get("least_side", 0.0))  # models of before have none
        patches = (self.image_size // self.facts.patch) ** 2
        self.batch_size = check_batch_size(batch_size) or max(1, min(64, PASS_PATCHES // max(1, patches)))
        self._run = open_runner(self.path, self.engine, self.device, self.precision, threads)
        self.criteria = None if calibration is None else criteria_of(calibration, self.describe())

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) at which an image of that size enters the tower, inside the graph."""
        return input_size(
            height,
            width,
            image_size=self.image_size,
            patch=self.facts.patch,
            keep_aspect=self.keep_aspect,
            least_side=self.least_side,
        )

    def predict_arrays(self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None) -> list[Prediction]:
        """Decoded images, (H, W, 3) uint8 -> one prediction each, in order; equal sizes share a batch.

        Raises:
            InputError: another kind of array; a category, for a model that holds the words of another.
            ImageError: an image does not hold the region of interest.
            ExportError: the engine failed.
        """
        check_arrays(images, categories)
        return judged_within(self.roi, images, lambda parts: self.predict_whole(parts, categories))

    def predict_whole(self, images: Sequence[np.ndarray], categories: Sequence[str] | None = None) -> list[Prediction]:
        """As `predict_arrays`, without a region of interest: whoever calls it has cut it out."""
        if categories is not None and self.method.uses_category and set(categories) - {self.category or "object"}:
            raise InputError(
                f"{self.path} holds the words for '{self.category or 'object'}' and knows no other category; "
                "export once for each, with --category"
            )
        results: list[Prediction | None] = [None] * len(images)
        for size, chosen in batches_of_one_size(images, self.batch_size):
            batch = np.ascontiguousarray(np.stack([images[i] for i in chosen]))  # (B, H, W, 3)
            maps, *parts = self._outputs(batch, size)
            for index, anomaly_map, score, whole, local in zip(chosen, maps, *parts, strict=True):
                results[index] = Prediction(float(score), float(whole), float(local), anomaly_map)
        return [result for result in results if result is not None]

    def _outputs(self, batch: np.ndarray, size: tuple[int, int]) -> Sequence[np.ndarray]:
        """The graph's outputs, in the order of OUTPUTS, checked for shape: an engine may fail without a word."""
        try:
            found = [np.asarray(value, dtype=np.float32) for value in self._run(batch)]
        except Exception as error:
            raise ExportError(f"{self.engine} cannot run {self.path}: {_first_line(error)}") from error
        expected = [(len(batch), *size), *[(len(batch),)] * 3]
        if [value.shape for value in found] != expected:
            shapes = ", ".join(str(value.shape) for value in found)
            raise ExportError(f"{self.engine} gave outputs of shapes {shapes} for images {batch.shape}")
        return found

    def describe(self) -> dict[str, Any]:
        """What the exported detector said of itself, and what runs it now."""
        return {
            **self.facts.model,
            **({"roi": str(self.roi)} if self.roi else {}),
            "precision": self.precision,
            "engine": self.engine,
            "export": {"file": str(self.path), "hash": self.facts.files.get(self.path.name)},
        }


def open_runner(path: Path, engine: Engine, device: str, precision: Precision, threads: int | None) -> Runner:
    """A function from (B, H, W, 3) uint8 to the four outputs.

    Raises:
        ExportError: the engine is not installed, or refuses the file.
        InputError: the device is not there.
    """
    try:
        if engine == "onnx":
            return _onnx_runner(path, device, threads)
        if engine == "openvino":
            return _openvino_runner(path, precision, threads)
        return _torch_runner(path)
    except ImportError as error:
        raise ExportError(f"{engine} is not installed; install it with `pip install 'headclip[{engine}]'`") from error
    except (ExportError, InputError):
        raise
    except Exception as error:
        raise ExportError(f"{engine} cannot open {path}: {_first_line(error)}") from error


def _onnx_runner(path: Path, device: str, threads: int | None) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about its own choices
    if threads:
        options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if torch.device(device).type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise InputError("this ONNX Runtime has no CUDA; install onnxruntime-gpu, or use --device cpu")
        providers.insert(0, "CUDAExecutionProvider")
    session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    return lambda images: session.run(list(OUTPUTS), {"images": images})


def _openvino_runner(path: Path, precision: Precision, threads: int | None) -> Runner:
    import openvino

    # Left alone, OpenVINO computes in bf16 on CPUs that have it, without saying so.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision]}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    with kept_signal_stack():
        model = openvino.Core().compile_model(str(path), "CPU", settings)

    def run(images: np.ndarray) -> list[np.ndarray]:
        found = model({"images": images})
        return [found[index].copy() for index in range(len(OUTPUTS))]

    return run


def _torch_runner(path: Path) -> Runner:
    module = torch.export.load(path).module()

    @torch.no_grad()
    def run(images: np.ndarray) -> list[np.ndarray]:
        return [value.numpy() for value in module(torch.from_numpy(images))]

    return run


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
