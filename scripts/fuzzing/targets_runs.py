"""Run folders, calibrations and pixel counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzzing.mutate import damage_bytes, damage_csv, damage_json, damage_json_lines, damage_png
from fuzzing.targets import Target, fresh


@dataclass(frozen=True)
class Said:
    """What the detector says of an image."""

    score: float
    global_score: float
    local_score: float
    anomaly_map: Any


class Brightness:
    """A detector without a model: the map is the brightness, the score its mean."""

    batch_size = 4

    def describe(self) -> dict[str, Any]:
        return {"backbone": "none", "backbone_hash": "0" * 64, "method": "brightness", "image_size": 24}

    def predict_arrays(self, images: list[Any], /) -> list[Said]:
        maps = [image.astype(np.float32).mean(axis=2) / np.float32(255.0) for image in images]
        return [Said(float(found.mean()), float(found.mean()) / 2, float(found.mean()) / 3, found) for found in maps]


def make(folder: Path) -> list[Target]:
    """The targets; their files are those of a small run."""
    from headclip.inference.predict import predict_run
    from headclip.judgement.calibrate import calibrate
    from headclip.judgement.choosing import Judging
    from headclip.judgement.conformal import Promise
    from headclip.judgement.scored import Scored
    from headclip.runs.records import labels_bytes

    fresh(folder)
    rng = np.random.default_rng(0)
    for number in range(3):
        path = folder / "in" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 60 + 90 * number, (20, 24, 3), dtype=np.uint8)).save(path)
    (folder / "in" / "bad.png").write_text("text")
    scored = Scored([str(i) for i in range(50)], [i / 100 for i in range(50)], [i / 100 for i in range(50)])
    calibration = calibrate(scored, Brightness().describe(), Promise(0.1))
    run = predict_run(Brightness(), [folder / "in"], folder / "run", judging=Judging(calibration=calibration)).folder
    (run / "labels.csv").write_bytes(labels_bytes({"0.png": 0, "2.png": 1}))

    def part(name: str, read: Callable[[Path], object], *damages: Callable, unfinished: bool = False) -> Target:
        return _part(folder, run, name, read, damages, unfinished)

    return [
        part("run.json", _open_run, damage_json),
        part("progress.jsonl", _open_run, damage_json_lines, unfinished=True),
        part("results.parquet", _open_run, damage_bytes),
        part("regions.jsonl", _open_run, damage_json_lines),
        part("labels.csv", _open_run, damage_csv),
        part("maps/2.png.png", _open_run, damage_png, damage_bytes),
        part("run.json", _resume(folder / "in"), damage_json, unfinished=True),
        _calibration_target(folder, calibration.to_json().encode()),
        _counts_target(folder),
        _results_target(folder),
    ]


def _part(
    folder: Path, run: Path, name: str, read: Callable[[Path], object], damages: tuple[Callable, ...], unfinished: bool
) -> Target:
    """The run with one of its files damaged."""
    title = f"{'resumed' if read is not _open_run else 'run'}: {name}"
    copy = folder / title.replace(" ", "-").replace("/", "-").replace(":", "")
    shutil.copytree(run, copy)
    if unfinished:
        facts = json.loads((copy / "run.json").read_text())
        (copy / "run.json").write_text(json.dumps(facts | {"status": "interrupted"}))
    whole = copy.with_name(copy.name + "-whole")
    shutil.copytree(copy, whole)

    def read_one(content: bytes) -> None:
        if read is not _open_run:
            shutil.rmtree(copy)
            shutil.copytree(whole, copy)
        (copy / name).write_bytes(content)
        read(copy)

    return Target(title, [(copy / name).read_bytes()], damages, read_one)


def _open_run(folder: Path) -> None:
    """All that can be asked of a run."""
    from headclip.evaluation.runs import match_rows  # noqa: F401 - imported before the first input, not within it
    from headclip.runs.run import Run
    from headclip.web.runs import RunView

    run = Run.open(folder)
    assert all(row.status in ("ok", "failed") for row in run.rows)
    _ = run.settings, run.finished, run.judgement, run.criteria, run.report
    for row in run.rows:
        run.image_path(row), run.overlay_path(row), run.preview_path(row), run.mask_path(row)
        if row.status == "ok":
            run.load_map(row)
    run.load_regions()
    run.load_labels()
    view = RunView(folder, "run")
    for key in view.state.ids:
        view.original(key)
    view.rule()


def _resume(inputs: Path) -> Callable[[Path], object]:
    from headclip.inference.predict import predict_run

    return lambda folder: predict_run(Brightness(), [inputs], folder, resume=True)


def _calibration_target(folder: Path, sound: bytes) -> Target:
    from headclip.judgement.calibration import Calibration

    def read(content: bytes) -> None:
        (folder / "calibration.json").write_bytes(content)
        found = Calibration.load(folder / "calibration.json")
        found.describe()
        found.criteria()
        found.mismatch(Brightness().describe())
        Calibration.from_values(json.loads(found.to_json()))

    return Target("calibration", [sound], (damage_json,), read)


def _counts_target(folder: Path) -> Target:
    from headclip.evaluation.counts import encode_counts, merge_all, read_counts, read_facts
    from headclip.metrics.state import image_state

    mask = np.zeros((20, 24), bool)
    mask[4:9, 5:9] = True
    scores = np.random.default_rng(0).random((20, 24)).astype(np.float32)
    file = folder / "image.counts"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        if read_facts(file) is not None:
            merge_all([read_counts(file)])

    return Target("pixel counts", [encode_counts(image_state(scores, mask), {"mask": "a"})], (damage_bytes,), read)


def _results_target(folder: Path) -> Target:
    from headclip.files import results_in

    place = folder / "evaluation"
    place.mkdir()

    def read(content: bytes) -> None:
        (place / "results.json").write_bytes(content)
        results_in(place, "results.json", "headclip-evaluation", "evaluation")

    sound = json.dumps({"format": "headclip-evaluation", "status": "finished", "command": ""}).encode()
    return Target("evaluation results", [sound], (damage_json,), read)
