"""Exporting a detector: graph, side file and the check that decides whether they may stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headclip.errors import InputError
from headclip.export.graph import ExportGraph, check_exportable
from headclip.export.parity import Parity, check_images, measure_parity
from headclip.export.write import capture, write_graph
from headclip.files import cannot_write, file_hash
from headclip.inference.detector import Detector
from headclip.inference.exported import SUFFIXES, Engine, ExportedDetector, ExportFacts, side_file
from headclip.inference.roi import refuse_roi
from headclip.locks import sole_writer
from headclip.version import software_versions

_PACKAGES: dict[Engine, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
INTERFACE = {
    "images": "uint8 (batch, height, width, 3): RGB as decoded, any size; the images of a batch have one size",
    "anomaly_map": "float32 (batch, height, width) in [0, 1], higher is more anomalous",
    "score": "float32 (batch,) in [0, 1]: the image score, joined from the next two",
    "global_score": "float32 (batch,) in [0, 1]: of the whole image",
    "local_score": "float32 (batch,) in [0, 1]: of the highest share of the map",
}


def export_model(
    detector: Detector,
    engine: Engine,
    out: str | Path,
    *,
    calibration: Mapping[str, Any] | None = None,
    check: str | Path | None = None,
    check_count: int = 24,
    tolerance: float | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Parity:
    """Write `detector` as one graph with its side file, after comparing both on images.

    Nothing appears at `out`, and what was there stays, unless the differences are within the tolerance; look at
    `Parity.ok`.

    Args:
        detector: in fp32 on the CPU.
        out: ends in .onnx, .xml or .pt2; the side file is called the same with .json behind it.
        calibration: kept in the side file; None keeps the checkpoint's own.
        check: folder of real images; None renders some.
        check_count: how many images at most.
        tolerance: largest difference of a map value or a score that is let through; None takes the engine's.
        progress: told what is being done.

    Raises:
        InputError: the method, its settings or the file name do not fit.
        ExportError: a package is missing, or the format cannot express the model.
        OutputError: the files cannot be written.
    """
    target = Path(out)
    if target.suffix != SUFFIXES[engine]:
        raise InputError(f"--out {target}: a model for {engine} ends in {SUFFIXES[engine]}")
    if detector.precision != "fp32" or detector.device.type != "cpu":
        raise InputError("a model is exported from fp32 on the CPU; load it with precision fp32 and device cpu")
    refuse_roi(detector, "export one without, and give the region to ExportedDetector or --roi")
    check_exportable(detector.method)
    images, source = check_images(None if check is None else Path(check), check_count)
    with _folder_beside(target) as folder:
        progress("capturing the graph")
        program = capture(ExportGraph(detector))
        progress(f"writing for {engine}")
        paths = write_graph(program, engine, folder, target.name)
        facts = ExportFacts(
            engine=engine,
            files={path.name: file_hash(path) for path in paths},
            model=detector.describe() if calibration is None else {**detector.describe(), "calibration": calibration},
            patch=detector.patch,
            interface=INTERFACE,
            versions=software_versions("torch", "numpy", *_PACKAGES[engine]),
        )
        facts.save(paths[0])
        progress("comparing with the original")
        exported = ExportedDetector(paths[0], batch_size=detector.batch_size)
        parity = measure_parity(detector, exported, images, source, tolerance)
        del exported  # lets go of the files, which Windows asks for
        if parity.ok:
            replace(facts, parity=parity.to_dict()).save(paths[0])
            side_file(target).unlink(missing_ok=True)  # from here to the end, a half replaced export has none
            for path in [*paths, side_file(paths[0])]:
                shutil.move(path, target.parent / path.name)
    return parity


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A folder for what is not finished, gone at the end, without a second writer of `target`.

    Raises:
        OutputError: it, or what the block writes, cannot be written.
    """
    try:
        with sole_writer(target), TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            yield Path(folder)
    except OSError as error:
        raise cannot_write(target, error) from error
