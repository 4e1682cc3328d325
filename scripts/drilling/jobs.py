"""The long jobs in miniature: how each is started, how it goes on after a kill, and what it comes to.

All run through the command line, as a user would run them. Only the seconds between two saved states are shorter.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 42
IMAGES = 16  # to predict and to calibrate on
TRAINING = 8  # of each label
EPOCHS, STEPS = 4, 40
SAVE_SECONDS = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a finished job came to. rows: one name for each that there should be one of; facts: all that must be equal
    however often the job was killed (no times, no places)."""

    rows: list[str]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """next_start: the command that begins or goes on, None when there is nothing to go on with since it is done.

    recorded: rows that are safe by now, whatever happens. outcome: what a finished job came to.
    """

    name: str
    next_start: Callable[[Path], list[str] | None]
    recorded: Callable[[Path], list[str]]
    outcome: Callable[[Path], dict[str, Any]]
    expected: tuple[str, ...]


def prepare(inputs: Path) -> None:
    """Pictures, a model of three layers, a checkpoint of it and settings for pretraining. Runs in a child."""
    from headclip.clip.backbone import Backbone
    from headclip.clip.config import ClipConfig, TextConfig, VisionConfig
    from headclip.clip.initialise import initialise
    from headclip.clip.tokenizer import ClipTokenizer
    from headclip.clip.weights import load_backbone, save_backbone
    from headclip.methods import create_method
    from headclip.methods.checkpoint import save_checkpoint

    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        _picture(inputs / "normal" / f"part {number:02}.png", rng, None)
    for number in range(TRAINING):
        _picture(inputs / "set" / "test" / "good" / f"{number:02}.png", rng, None)
        place = inputs / "set" / "test" / "scratch" / f"{number:02}.png"
        _picture(place, rng, inputs / "set" / "ground_truth" / "scratch" / f"{number:02}_mask.png")
    (inputs / "normal" / "not an image.png").write_text("text")
    config = ClipConfig("tiny", 32, VisionConfig(64, 3, 1, 14, SIDE), TextConfig(64, 2, 1, vocab_size=700))
    backbone = initialise(Backbone(config, ClipTokenizer(700)), 0).freeze()
    save_backbone(backbone, inputs / "tiny")
    kept = load_backbone(inputs / "tiny")  # in half precision, which is another hash
    save_checkpoint(inputs / "tiny.safetensors", create_method("headclip", kept))
    (inputs / "tiny.json").write_text(json.dumps(config.to_dict()))
    sizes = {"early_sizes": [[42, 42]], "late_sizes": [[42, 56]]}
    recipe = {"images": 2 * STEPS, "batch_size": 2, "warmup": 2, "precision": "fp32", **sizes}
    (inputs / "recipe.json").write_text(json.dumps(recipe))


def _picture(path: Path, rng: np.random.Generator, mask: Path | None) -> None:
    pixels = rng.integers(60, 120, (SIDE + 6, SIDE + 14, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask is not None:
        inside = np.zeros(pixels.shape[:2], np.uint8)
        inside[8:20, 10:30] = 255
        pixels[inside > 0] += 100
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(inside).save(mask)
    Image.fromarray(pixels).save(path)


def save_often() -> None:
    """Let trainer and pretrainer save their state many times in a run of seconds."""
    from headclip.training.pretrain import Pretrainer
    from headclip.training.trainer import Trainer

    for kind in (Trainer, Pretrainer):
        kind.run = _often(kind.run)  # type: ignore[attr-defined]


def _often(run: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *arguments, **options: run(self, *arguments, **{"save_seconds": SAVE_SECONDS} | options)


def make_jobs(inputs: Path, features: Path | None = None) -> dict[str, Job]:
    """Every job by its name, on what `prepare` wrote. features: where training keeps them; None: beside the rest."""
    model = ["--backbone", str(inputs / "tiny"), "--device", "cpu"]
    pictures = tuple(sorted(path.name for path in (inputs / "normal").iterdir()))
    labelled = tuple(
        sorted(path.relative_to(inputs / "set").as_posix() for path in (inputs / "set/test").rglob("*.png"))
    )
    checkpoint = ["--checkpoint", str(inputs / "tiny.safetensors")]
    predict = ["predict", str(inputs / "normal"), *model, *checkpoint, "--batch-size", "2", "--quiet"]
    evaluate = ["evaluate", "--data", str(inputs / "set"), *model, *checkpoint, "--batch-size", "2", "--quiet"]
    evaluate += ["--bootstrap", "20", "--no-figures", "--keep-maps"]
    calibrate = ["calibrate", str(inputs / "normal"), *model, "--false-alarms", "0.2", "--batch-size", "2", "--quiet"]
    train = ["train", "--data", str(inputs / "set"), *model, "--epochs", str(EPOCHS), "--batch-size", "4"]
    train += ["--workers", "0", "--image-size", str(SIDE), "--quiet"]
    pretrain = ["pretrain", "--architecture", str(inputs / "tiny.json"), "--recipe", str(inputs / "recipe.json")]
    pretrain += ["--workers", "0", "--device", "cpu", "--quiet"]
    epochs = tuple(map(str, range(1, EPOCHS + 1)))
    steps = tuple(map(str, range(10, STEPS + 1, 10)))
    jobs = (
        Job("predict", partial(_next_run, predict, "run.json"), _journal_rows, _run_outcome, pictures),
        Job("evaluate", partial(_next_run, evaluate, "results.json"), _journal_rows, _evaluation_outcome, labelled),
        Job("calibrate", partial(_next_calibration, calibrate, inputs), lambda _: [], _calibration_outcome, ()),
        Job("train", partial(_next_training, train, features), lambda _: [], _training_outcome, epochs),
        Job("pretrain", partial(_next_pretraining, pretrain), lambda _: [], _pretraining_outcome, steps),
    )
    return {job.name: job for job in jobs}


# --- how each goes on


def _next_run(command: list[str], facts: str, out: Path) -> list[str] | None:
    known = (out / "out" / facts).exists()
    return [*command, "--out", str(out / "out"), *(["--resume"] if known else [])]


def _next_calibration(command: list[str], inputs: Path, out: Path) -> list[str] | None:
    """Calibration has nothing to go on from: it is run again, over whatever is there."""
    copy = out / "model.safetensors"
    if not copy.exists():
        out.mkdir(parents=True, exist_ok=True)
        shutil.copy(inputs / "tiny.safetensors", copy)
    return [*command, "--out", str(out / "calibration.json"), "--checkpoint", str(copy), "--into-checkpoint"]


def _next_training(command: list[str], features: Path | None, out: Path) -> list[str] | None:
    target = out / "model.safetensors"
    begun = target.with_name(target.name + ".state").exists()
    if target.exists() and not begun:
        return None
    kept = ["--features-in", str(features or out / "features")]
    return [*command, "--out", str(target), *kept, *(["--resume"] if begun else [])]


def _next_pretraining(command: list[str], out: Path) -> list[str] | None:
    return [*command, "--out", str(out / "out"), *(["--resume"] if (out / "out/state.pt").exists() else [])]


# --- what each comes to


def _journal_rows(out: Path) -> list[str]:
    from headclip.runs.run import read_journal

    found: list[str] = []
    for journal in (out / "out").rglob("progress.jsonl"):
        found += [name for name, entry in read_journal(journal)[0].items() if entry.row.status == "ok"]
    return found


def _run_outcome(out: Path) -> dict[str, Any]:
    from headclip.runs.run import Run

    run = Run.open(out / "out")
    assert run.finished, "the run says that it is not finished"
    table = [row["path"] for row in _csv_rows(out / "out/results.csv")]
    assert table == [row.path for row in run.rows], "CSV and Parquet tables differ"
    kept = {row.path: [row.status, row.reason, row.score, row.peak, row.height, row.width] for row in run.rows}
    kept = _rounded(kept)  # images that are judged in other batches differ in the eighth digit
    files = _hashes(out / "out", "maps", "previews", "overlays")
    return {"rows": table, "facts": {"rows": kept, "files": files, "scale": run.facts["scale"]}}


def _evaluation_outcome(out: Path) -> dict[str, Any]:
    folder = out / "out"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["status"] == "finished", "the evaluation says that it is not finished"
    rows = _csv_rows(folder / "scores.csv")
    facts = {"scores": rows, "tables": _csv_rows(folder / "tables.csv"), "averages": _rounded(results["averages"])}
    return {"rows": [row["path"] for row in rows], "facts": {**facts, "maps": _hashes(folder / "runs", "")}}


def _calibration_outcome(out: Path) -> dict[str, Any]:
    from headclip.methods.checkpoint import read_info

    found = json.loads((out / "calibration.json").read_text(encoding="utf-8"))
    kept = read_info(out / "model.safetensors").calibration
    assert kept == found, "the file and the checkpoint have different calibrations"
    return {"rows": [], "facts": {key: value for key, value in found.items() if key != "created"} | _tensors(out)}


def _training_outcome(out: Path) -> dict[str, Any]:
    log = _json_lines(out / "model.safetensors.log.jsonl")
    losses = {line["epoch"]: [line["total"], line["local"], line["image"]] for line in log}
    return {"rows": [str(line["epoch"]) for line in log], "facts": {"losses": losses} | _tensors(out)}


def _pretraining_outcome(out: Path) -> dict[str, Any]:
    log = _json_lines(out / "out/log.jsonl")
    return {"rows": [str(line["step"]) for line in log], "facts": _tensors(out / "out/model")}


def _tensors(folder: Path) -> dict[str, Any]:
    """A hash of every tensor of model.safetensors."""
    from safetensors.torch import load_file

    found = load_file(folder / "model.safetensors")
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in found.items()}


def _rounded(value: Any) -> Any:
    """Numbers to six decimals, as the tables have them."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _hashes(folder: Path, *parts: str) -> dict[str, str]:
    files = [path for part in parts for path in (folder / part).rglob("*.[pj][np]g")]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)}


def _csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
