"""The examples and the demo run as a reader would run them."""

from __future__ import annotations

import csv
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import roc_auc_score

from headclip import demo
from headclip.cli.app import main
from headclip.clip.hub import is_complete
from headclip.clip.weights import EMBEDDED, load_backbone, save_backbone
from headclip.errors import InputError
from headclip.methods.checkpoint import load_checkpoint
from headclip.runs.run import Run
from tiny_clip import make_backbone, make_config

EXAMPLES = Path(__file__).parents[1] / "examples"
PREDICT, API, TRAIN = "01_predict_folder.py", "02_python_api.py", "03_train_synthetic.py"
pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A random CLIP on disk that looks at images of 56 px."""
    folder = tmp_path_factory.mktemp("tiny")
    save_backbone(make_backbone(replace(make_config(), default_image_size=56)), folder)
    return str(folder)


@pytest.fixture(params=["tiny", "embedded"])
def backbone(request, tiny_folder):
    if request.param == "tiny":
        return tiny_folder
    if not is_complete(EMBEDDED):
        pytest.skip("the embedded weights are not in this checkout")
    return "embedded"


@pytest.fixture
def run_example(tmp_path, monkeypatch, capsys):
    """Runs an example as a script in an empty folder; returns what it printed, line by line."""

    def run(name: str, *arguments: str) -> list[str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {PREDICT, API, TRAIN}


def test_predict_folder(run_example, backbone, tmp_path):
    lines = run_example(PREDICT, "--backbone", backbone, "--count", "3")
    run = Run.open(tmp_path / "runs" / "example-01" / "results")
    scores = sorted((row.score for row in run.ok), reverse=True)
    assert len(scores) == 3
    assert [line.split()[0] for line in lines[:3]] == [f"{score:.3f}" for score in scores]
    assert (tmp_path / lines[-1].removeprefix("report: ")).is_file()


def test_predict_folder_of_ones_own(run_example, tiny_folder, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (60, 40), "grey").save(tmp_path / "photos" / "part.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"")
    lines = run_example(PREDICT, "photos", "--backbone", tiny_folder)
    assert "part.png" in lines[0]
    assert lines[1].startswith("failed  broken.png: ")


def test_python_api(run_example, backbone, tmp_path):
    lines = run_example(API, "--backbone", backbone, "--save", "map.png")
    assert [line.split()[0] for line in lines[:3]] == ["score"] * 3
    assert lines[0] == lines[1]  # the same picture twice
    assert "map 320 x 200" in lines[0]
    assert "map 224 x 224" in lines[2]
    with Image.open(tmp_path / "map.png") as saved:
        assert saved.size == (320, 200)
        assert np.ptp(np.asarray(saved)) > 0
    assert lines[-1].startswith("as expected: ")


def test_train_synthetic(run_example, backbone, tmp_path):
    size = "56" if backbone != "embedded" else "128"
    lines = run_example(TRAIN, "--backbone", backbone, "--images", "8", "--epochs", "1", "--image-size", size)
    assert len([line for line in lines if line.startswith("epoch 1 step ")]) == 2
    assert len([line for line in lines if line.startswith("score ")]) == 6
    checkpoint = tmp_path / lines[-1].removeprefix("checkpoint: ")
    method, info = load_checkpoint(checkpoint, load_backbone(backbone))
    assert info.data["name"] == "synthetic"
    assert bool((method.state_dict()["head_weight"] != 1).all())  # every head weight has moved


@pytest.fixture
def fake_dataset(tmp_path, monkeypatch):
    """A folder in the layout of elpv-dataset: 6 cells of each label and kind, and two unsure ones."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = []
    for probability in (0.0, 1.0):
        for kind in demo.KINDS:
            lines += [f"{probability} {kind}"] * 6
    lines += ["0.3333333333333333 mono", "0.6666666666666666 poly"]
    for number, line in enumerate(lines):
        lines[number] = f"images/cell{number:04d}.png {line}"
        pixels = generator.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"cell{number:04d}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(demo, "dataset_folder", lambda: folder)
    return folder


def test_demo(fake_dataset, tiny_folder, tmp_path, capsys):
    out = tmp_path / "demo"
    demo.demo(out, each=4, backbone=tiny_folder)
    printed = capsys.readouterr().out
    with (out / "results" / "results.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    labels = [row["path"].startswith("defective/") for row in rows]
    expected = roc_auc_score(labels, [float(row["score"]) for row in rows])
    assert labels.count(True) == labels.count(False) == 4
    assert f"Image AUROC {expected:.3f} " in printed
    assert "Most anomalous images" in printed
    ways = [line.partition(":")[0] for line in printed.splitlines() if ": Image AUROC" in line]
    assert [way.split(" (")[0] for way in ways] == [
        "Each by itself",
        "Compared with 32 others",
        "Compared with 8 other cells known to be sound",
    ]
    normal = {path.name for path in (out / "known-good").rglob("*.png")}
    assert len(normal) == 8
    assert not normal & {path.name for path in (out / "images").rglob("*.png")}
    assert len(Run.open(out / "beside-known-good").settings["references"]) == 8
    assert "CC BY-NC-SA 4.0" in printed
    assert "CC BY-NC-SA 4.0" in (out / "images" / demo.NOTICE).read_text()
    assert (out / "results" / "report.html").is_file()


def test_demo_replaces_an_earlier_sample_and_nothing_else(fake_dataset, tiny_folder, tmp_path):
    out = tmp_path / "demo"
    demo.demo(out, each=6, backbone=tiny_folder)
    own = out / "images" / "good" / "my own.png"
    own.write_bytes((fake_dataset / "images" / "cell0000.png").read_bytes())
    demo.demo(out, each=2, seed=1, backbone=tiny_folder)
    kept = list((out / "images").rglob("*.png"))
    assert own in kept
    assert len(kept) == 2 + 2 + 1


def test_demo_takes_sure_labels_and_copies_the_files(fake_dataset, tmp_path):
    lines = (fake_dataset / "labels.csv").read_text().splitlines()
    cells = demo.sample_cells(lines, 5, seed=3)
    assert cells == demo.sample_cells(lines, 5, seed=3)
    assert {cell.file for cell in cells} != {cell.file for cell in demo.sample_cells(lines, 5, seed=4)}
    truth = {line.split()[0]: line.split()[1:] for line in lines}
    assert all(truth[cell.file] == [f"{cell.label:.1f}", cell.kind] for cell in cells)
    counts = {
        (label, kind): sum((c.label, c.kind) == (label, kind) for c in cells) for label in (0, 1) for kind in demo.KINDS
    }
    assert counts == {(0, "mono"): 2, (0, "poly"): 3, (1, "mono"): 2, (1, "poly"): 3}
    demo.write_images(cells, fake_dataset, tmp_path / "copies")
    for cell in cells:
        assert (tmp_path / "copies" / cell.name).read_bytes() == (fake_dataset / cell.file).read_bytes()
    with pytest.raises(InputError, match="has 6 good mono cells"):
        demo.sample_cells(lines, 14, seed=0)


def test_demo_on_the_published_labels():
    pytest.importorskip("elpv_dataset", reason="elpv-dataset is not installed (extra: demo)")
    folder = demo.dataset_folder()
    cells = demo.sample_cells(folder.joinpath("labels.csv").read_text().splitlines(), 60, seed=0)
    assert len({cell.file for cell in cells}) == 120
    assert sum(cell.label for cell in cells) == 60
    assert all(folder.joinpath(cell.file).is_file() for cell in cells)


def test_demo_without_the_dataset(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    monkeypatch.setattr(sys, "argv", ["headclip.demo"])
    with pytest.raises(SystemExit) as end:
        demo.main()
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "pip install 'headclip[demo]'" in message


few = st.lists(st.integers(0, 5).map(lambda n: n / 5), min_size=1, max_size=12)


@given(few, few)
def test_auroc_is_exact(normal, anomalous):
    value, low, high = demo.auroc_with_interval(normal, anomalous, resamples=50)
    labels = [0] * len(normal) + [1] * len(anomalous)
    assert value == pytest.approx(roc_auc_score(labels, normal + anomalous))
    assert 0 <= low <= high <= 1


def test_auroc_interval_covers_the_truth():
    """Normal scores one standard deviation apart: the true AUROC is Phi(1/sqrt 2) = 0.7602."""
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        normal, anomalous = generator.normal(0, 1, 60), generator.normal(1, 1, 60)
        _, low, high = demo.auroc_with_interval(normal.tolist(), anomalous.tolist(), resamples=400)
        covered += low <= 0.7602 <= high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.fixture
def demo_images(tmp_path, monkeypatch):
    """Where `make demo` leaves its images, seen from the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "demo" / "images" / "good"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.effect_noise((64, 48), 20 + 40 * number).save(folder / f"{number}.png")


def readme_block(language: str) -> str:
    """The first block of that language below the heading Quick start."""
    text = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8").split("\n## Quick start\n")[1]
    return text.split(f"```{language}\n")[1].split("```")[0]


def test_readme_command(demo_images, backbone, tmp_path):
    commands = [line for line in readme_block("sh").splitlines() if line.startswith("headclip ")]
    assert commands
    for command in commands:
        words = shlex.split(command)[1:]
        with pytest.raises(SystemExit) as end:
            main(words if backbone == "embedded" else [*words, "--backbone", backbone])
        assert end.value.code == 0
        assert len(Run.open(words[words.index("--out") + 1]).ok) == 5


def test_readme_python(demo_images, backbone, capsys):
    code = readme_block("python")
    assert code.count("Detector()") == 1
    exec(code if backbone == "embedded" else code.replace("Detector()", f"Detector({backbone!r})"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == [f"runs/demo/images/good/{n}.png" for n in range(4)]
    assert all("(48, 64)" in line for line in lines)
