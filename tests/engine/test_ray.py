"""The real thing: a Ray cluster on this machine, its actors, and what is left when they are killed.

Starting one takes 20 seconds and a gigabyte, so these run where HEADCLIP_TEST_RAY is set: `make test-ray`.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from engine.engine_files import comparable, load_fake, load_tiny, load_tiny_labelled, same_runs, write_dataset
from headclip.data.datasets import open_spec
from headclip.engine import crew
from headclip.engine.crew import LOST, Crew, ask_one
from headclip.engine.evaluating import evaluate_on_ray
from headclip.engine.predicting import Model, Settings, predict_on_ray
from headclip.errors import HeadclipError, InputError
from headclip.evaluation.evaluate import Options, evaluate
from headclip.inference.detector import Detector
from headclip.inference.predict import predict_run
from headclip.runs.run import Run
from inference.fake_detector import FakeDetector
from inference.pictures import write_pictures

if not os.environ.get("HEADCLIP_TEST_RAY"):
    pytest.skip("needs a Ray cluster: make test-ray", allow_module_level=True)
ray = pytest.importorskip("ray", reason="Ray is not installed (extra: ray)")

TWO = Crew(2, 2)
pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


@pytest.fixture(scope="module")
def cluster():
    """Two processors; workers find the detectors of the tests."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [before])])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=150 * 2**20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from headclip.clip.weights import save_backbone
    from tiny_clip import make_backbone, make_config

    folder = tmp_path_factory.mktemp("tiny")
    save_backbone(make_backbone(replace(make_config(), default_image_size=42)), folder)
    return str(folder)


def test_rows_are_those_of_one_machine(cluster, pictures, tiny, tmp_path):
    """Bit for bit: the same batches, a thread each."""
    detector = Detector(tiny, device="cpu", precision="fp32", batch_size=3)
    predict_run(detector, [pictures], tmp_path / "one")
    model = Model(load_tiny, {"backbone": tiny, "batch_size": 3, "precision": "fp32"})
    summary = predict_on_ray(model, [str(pictures)], tmp_path / "many", TWO, Settings())
    assert (len(summary.ok), len(summary.failed)) == (12, 5)
    same_runs(tmp_path / "one", tmp_path / "many")


def test_killed_actors_cost_no_row(cluster, tmp_path):
    folder, pids = write_pictures(tmp_path / "in", 96), tmp_path / "pids"
    pids.mkdir()
    killed: list[int] = []
    stop = threading.Event()

    def murder():
        generator = random.Random(3)
        while not stop.wait(0.5) and len(killed) < 3:
            alive = [int(path.name) for path in pids.iterdir() if int(path.name) not in killed]
            if alive and len(list((tmp_path / "run" / "maps").rglob("*.png"))) > 8 * (len(killed) + 1):
                victim = generator.choice(alive)
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                killed.append(victim)
                time.sleep(2)

    model = Model(load_fake, {"batch_size": 4, "seconds": 0.1, "pids": str(pids)})
    thread = threading.Thread(target=murder)
    # The worker that is asked what the model is leaves its number too, and has ended before a map is there.
    thread.start()
    try:
        summary = predict_on_ray(model, [str(folder)], tmp_path / "run", TWO, Settings())
    finally:
        stop.set()
        thread.join()
    assert killed
    assert len(summary.ok) == len({row.path for row in summary.rows}) == 96
    predict_run(FakeDetector(), [folder], tmp_path / "one")
    assert comparable(Run.open(tmp_path / "one").rows) == comparable(summary.rows)
    same_runs(tmp_path / "one", tmp_path / "run")


def test_an_image_that_kills_its_worker_is_one_failed_row(cluster, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "_RETRIES", 0)  # each try costs the start of a process
    Image.new("RGB", (40, 40), "white").save(pictures / "left" / "white.png")
    model = Model(load_fake, {"batch_size": 4})
    summary = predict_on_ray(model, [str(pictures)], tmp_path / "run", TWO, Settings())
    rows = {row.path: row for row in summary.rows}
    assert len(summary.rows) == len(rows) == 18
    assert (rows["left/white.png"].status, rows["left/white.png"].reason) == ("failed", LOST)
    assert len(summary.ok) == 12


def test_figures_are_those_of_one_machine(cluster, tiny, tmp_path):
    data = write_dataset(tmp_path / "data")
    options = Options(bootstrap=20, figures=False)
    detector = Detector(tiny, device="cpu", precision="fp32", batch_size=3)
    one = evaluate(detector, [open_spec(f"folder={data}")], tmp_path / "one", options)
    model = Model(load_tiny_labelled, {"backbone": tiny, "batch_size": 3, "precision": "fp32"})
    many = evaluate_on_ray(model, [open_spec(f"folder={data}")], tmp_path / "many", options, TWO)
    assert one.rows == many.rows
    assert (tmp_path / "one" / "scores.csv").read_bytes() == (tmp_path / "many" / "scores.csv").read_bytes()
    assert (tmp_path / "one" / "tables.csv").read_bytes() == (tmp_path / "many" / "tables.csv").read_bytes()


def test_errors_of_workers_are_said(cluster):
    def refuse():
        raise InputError("no such backbone; choose another")

    with pytest.raises(HeadclipError, match="no such backbone"):
        ask_one(replace(TWO, gpus=0.0), refuse)
