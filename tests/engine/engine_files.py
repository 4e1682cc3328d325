"""Detectors and crews for the tests of the engine; workers import this file too."""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headclip.engine.chunks import Chunk, Result
from headclip.engine.crew import Crew
from headclip.runs.run import Row, Run
from inference.fake_detector import FakeDetector

GUILTY = 255  # the brightness of a picture that kills its worker


class DeadlyDetector(FakeDetector):
    """Its process does not survive a picture that is all white."""

    def predict_arrays(self, images: Any, /) -> Any:
        if any((np.asarray(image) == GUILTY).all() for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict_arrays(images)


def load_fake(arguments: Mapping[str, Any]) -> FakeDetector:
    """arguments: batch_size; seconds an image; pids: a folder in which each process leaves its number."""
    if arguments.get("pids"):
        Path(arguments["pids"], str(os.getpid())).touch()
    return DeadlyDetector(batch_size=arguments.get("batch_size") or 4, seconds=arguments.get("seconds", 0.0))


def load_tiny(arguments: Mapping[str, Any]) -> Any:
    """A real detector on the backbone in arguments["backbone"]."""
    from headclip.inference.detector import Detector

    return Detector(arguments["backbone"], device="cpu", precision="fp32", batch_size=arguments["batch_size"])


def load_tiny_labelled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"": load_tiny(arguments)}


def load_two(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Two methods on one loaded backbone."""
    from headclip.clip.weights import load_backbone
    from headclip.inference.detector import Detector

    backbone = load_backbone(arguments["backbone"])
    computing: Any = {"device": "cpu", "precision": "fp32", "batch_size": arguments["batch_size"]}
    return {name: Detector(backbone, method=name, **computing) for name in ("clip", "headclip")}


def comparable(rows: Sequence[Row]) -> list[Row]:
    """Rows without the one thing that may differ."""
    return [replace(row, seconds=None) for row in rows]


def same_runs(one: Path, other: Path) -> None:
    """Two run folders have the same rows, maps, overlays and scale."""
    first, second = Run.open(one), Run.open(other)
    assert comparable(first.rows) == comparable(second.rows)
    assert first.facts["scale"] == second.facts["scale"]
    for row in first.ok:
        assert (one / str(row.map)).read_bytes() == (other / str(row.map)).read_bytes()
        assert first.overlay_path(row).read_bytes() == second.overlay_path(row).read_bytes()


class InlineCrew:
    """Does the work of a cluster in this process. mishaps: what becomes of a result on its way, if not itself alone."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.mishap: Callable[[Result], list[Result]] = lambda result: [result]

    @contextmanager
    def cluster(self, crew: Crew) -> Iterator[Crew]:
        yield replace(crew, gpus=0.0)

    def ask_one(self, crew: Crew, question: Callable[[], Any]) -> tuple[Any, list[str]]:
        return question(), []

    def stream(self, crew: Crew, make_worker: Callable[[], Any], chunks: Sequence[Chunk]) -> Iterator[Result]:
        worker = make_worker()
        for chunk in chunks:
            self.chunks.append(chunk)
            yield from self.mishap(worker(chunk))


def memory_url(name: str = "") -> str:
    """A place of its own in fsspec's memory."""
    return f"memory://{secrets.token_hex(6)}/{name}".rstrip("/")


def upload(folder: Path, url: str) -> None:
    """Copy a folder to a URL."""
    from headclip.engine.storage import Place

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            Place(url).write(path.relative_to(folder).as_posix(), path.read_bytes())


def download(url: str, folder: Path) -> Path:
    """Copy what is below a URL to a folder."""
    from headclip.engine.storage import Place

    for name in Place(url).list():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(Place(url).read(name))
    return folder


def unlucky(seed: int) -> Callable[[Result], list[Result]]:
    """Results that get lost, come twice, or are errors, now and then."""
    generator = random.Random(seed)

    def mishap(result: Result) -> list[Result]:
        kind = generator.choice(["well", "well", "lost", "twice", "error"])
        if kind == "error":
            return [Result(result.number, error="ValueError: a bit fell over")]
        return {"well": [result], "twice": [result, result], "lost": []}[kind]

    return mishap


def write_dataset(folder: Path) -> Path:
    """Good and defective pictures with masks, and a broken file."""
    for number in range(10):
        kind = "good" if number < 4 else "scratch"
        path = folder / "test" / kind / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40, 32), 10 + 8 * number).save(path)
        if kind == "scratch":
            mask = folder / "ground_truth" / kind / f"{number}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("L", (40, 32))
            image.paste(255, (number, 5, number + 9, 15))
            image.save(mask)
    (folder / "test" / "good" / "broken.png").write_bytes(b"")
    return folder
