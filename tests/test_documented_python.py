"""The Python of the documents runs as it stands, in a folder that has the files it names."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from commands import run
from data.dataset_files import kolektor
from data.volume_files import head_of, write_series
from headclip.clip.hub import is_complete
from headclip.clip.weights import EMBEDDED
from headclip.inference.detector import Detector

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGES = [path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if BLOCK.search(path.read_text())]
NEEDS = {"export": ("onnxscript", "onnxruntime", "openvino"), "tutorial": ("elpv_dataset",), "volumes": ("pydicom",)}
SLOW = {"ablations": pytest.mark.slow, "export": pytest.mark.slow}
pytestmark = pytest.mark.skipif(not is_complete(EMBEDDED), reason="the embedded weights are not in this checkout")


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(number).integers(0, 256, (8, 10, 3), np.uint8)
        Image.fromarray(values).resize((100, 80)).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What the documents take for granted, but exported models."""
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path, "part.png", *(f"runs/demo/images/{i}.png" for i in range(2)))
    pictures(tmp_path, *(f"{place}/{i}.png" for place in ("photos", "known-good") for i in range(1, 5)))
    shutil.copy(EMBEDDED / "headclip.safetensors", "mine.safetensors")
    Path("line3.json").write_text(json.dumps(Detector(device="cpu").describe()["calibration"]), encoding="utf-8")
    return tmp_path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [pytest.param(path, marks=SLOW.get(path.stem, ()), id=path.stem) for path in PAGES])
def test_it_runs(folder, page):
    for needed in NEEDS.get(page.stem, ()):
        if find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    if page.stem == "ablations":
        assert run("data", "synth", "--out", "runs/rendered", "--count", "8", "--size", "96") == 0
    elif page.stem == "evaluation":
        kolektor(folder / "SDD")
    elif page.stem == "export":
        for kind, file in (("onnx", "model.onnx"), ("openvino", "model.xml")):
            assert run("export", "--to", kind, "--out", file) == 0
    elif page.stem == "volumes":
        write_series(folder / "ct", head_of())
    namespace = {"__name__": "documented"}
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        exec(compile(block.replace('"/data/SDD"', '"SDD"'), page.name, "exec"), namespace)


def test_pages_with_python_are_found():
    assert {"README", "evaluation", "training"} <= {page.stem for page in PAGES}
