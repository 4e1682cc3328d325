"""Exports of a tiny model: files, side file, parity, engines, errors, the command."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from commands import run
from headclip.errors import CheckpointError, ExportError, InputError, OutputError
from headclip.export import export_model
from headclip.export.parity import Parity, check_images, measure_parity
from headclip.export.write import write_graph
from headclip.inference.detector import Detector
from headclip.inference.exported import ExportedDetector, ExportFacts, is_exported, side_file
from headclip.inference.signal_stack import signal_stack
from headclip.inference.tiles import TiledDetector
from tiny_clip import make_backbone, make_config

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")
SIZES = [(60, 80), (60, 80), (33, 50), (130, 40), (12, 20), (20, 300)]
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime: pip install 'headclip[onnx]'",
)
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs pip install 'headclip[openvino]'")


def build(**options):
    backbone = make_backbone(replace(make_config(), keep_aspect=True, least_side=0.9))
    return Detector(backbone, device="cpu", precision="fp32", image_size=42, batch_size=2, **options)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def detector():
    with pytest.warns(UserWarning, match="no checkpoint"):
        return build()


@pytest.fixture(scope="module")
def torch_export(detector, captured, tmp_path_factory, folder):
    """The tiny model for torch, and what the export said."""
    path = tmp_path_factory.mktemp("torch") / "tiny.pt2"
    return detector, path, export_model(detector, "torch", path, check=folder)


@pytest.fixture(scope="module")
def onnx_export(torch_export, tmp_path_factory, folder):
    """The same for ONNX; after torch's, since the conversion uses the program up."""
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    return torch_export[0], path, export_model(torch_export[0], "onnx", path, check=folder)


@pytest.fixture(scope="module")
def exported(torch_export):
    """The exported model, opened; opening takes longer than judging here."""
    return ExportedDetector(torch_export[1])


def assert_agrees(eager, exported, images, tolerance=1e-4):
    for one, other in zip(eager.predict_arrays(images), exported.predict_arrays(images), strict=True):
        np.testing.assert_allclose(other.anomaly_map, one.anomaly_map, atol=tolerance)
        assert other.score == pytest.approx(one.score, abs=tolerance)
        assert other.global_score == pytest.approx(one.global_score, abs=tolerance)
        assert other.local_score == pytest.approx(one.local_score, abs=tolerance)


def test_torch_any_size_and_batch(torch_export, exported, images):
    detector, _, parity = torch_export
    assert parity.ok
    assert parity.images == len(SIZES)
    assert_agrees(detector, exported, images)


def test_side_file(torch_export):
    detector, path, parity = torch_export
    content = json.loads(side_file(path).read_text())
    facts = ExportFacts.load(path)
    assert content["format"] == "headclip-export-1"
    assert set(facts.files) == {"tiny.pt2"}
    assert facts.model == json.loads(json.dumps(detector.describe()))
    assert facts.parity == parity.to_dict()
    assert set(facts.interface) == {"images", "anomaly_map", "score", "global_score", "local_score"}
    assert [item.name for item in sorted(path.parent.iterdir())] == ["tiny.pt2", "tiny.pt2.json"]


def test_the_interface_is_the_detectors(torch_export, exported, folder):
    detector, path, _ = torch_export
    found = exported.predict([folder / "0.png", Image.open(folder / "1.png")])
    assert [prediction.path for prediction in found] == [str(folder / "0.png"), None]
    assert exported.predict(folder / "2.png")[0].anomaly_map.shape == SIZES[2]
    described = exported.describe()
    assert described.pop("engine") == "torch"
    assert described.pop("export")["file"] == str(path)
    assert described == json.loads(json.dumps(detector.describe()))
    assert exported.input_size(60, 80) == detector.input_size(60, 80)
    assert exported.input_size(20, 300) == detector.input_size(20, 300) == (42, 168)
    large = np.zeros((90, 100, 3), np.uint8)
    tiled, eager = (TiledDetector(item, tile=64).predict_arrays([large])[0] for item in (exported, detector))
    np.testing.assert_allclose(tiled.anomaly_map, eager.anomaly_map, atol=1e-4)


def test_refusals_come_before_the_work(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        export_model(build(), "onnx", tmp_path / "m.pt2")
    with pytest.raises(InputError, match="winclip cannot be exported"):
        export_model(build(method="winclip"), "torch", tmp_path / "m.pt2")
    bf16 = Detector(make_backbone(make_config()), device="cpu", precision="bf16")
    with pytest.raises(InputError, match="fp32 on the CPU"):
        export_model(bf16, "torch", tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError, match=r"pip install 'headclip\[onnx\]'"):
        write_graph(None, "onnx", tmp_path, "m.onnx")


@pytest.mark.parametrize(
    ("engine", "error", "free"),
    [
        ("torch", OSError(errno.ENOSPC, "No space left on device"), 1 << 40),
        ("onnx", OSError(errno.ENOSPC, "No space left on device"), 1 << 40),
        ("onnx", RuntimeError("a stream broke"), 1000),  # what C++ makes of it
    ],
)
def test_a_full_disk_is_not_told_to_be_the_models_fault(detector, captured, tmp_path, monkeypatch, engine, error, free):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr("headclip.export.write._write_onnx", fail)
    if engine == "torch":
        monkeypatch.setattr("pathlib.Path.open", fail)
    monkeypatch.setattr("shutil.disk_usage", lambda place: shutil._ntuple_diskusage(1 << 40, 1 << 40, free))
    path = tmp_path / {"torch": "m.pt2", "onnx": "m.onnx"}[engine]
    with pytest.raises(OutputError, match=r"cannot write .*/m\..*: No space left on device; make room and repeat"):
        export_model(detector, engine, path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_strange_files(torch_export, tmp_path):
    _, path, _ = torch_export
    copy = tmp_path / path.name
    with pytest.raises(CheckpointError, match="no exported model at"):
        ExportedDetector(copy)
    copy.write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"no side file tiny\.pt2\.json"):
        ExportedDetector(copy)
    side_file(copy).write_text(side_file(path).read_text())
    assert ExportFacts.load(copy) == ExportFacts.load(path)
    copy.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="missing or not the file that"):
        ExportedDetector(copy)
    for text in (b"{}", b"[" * 100_000, b"\xff{}"):
        side_file(copy).write_bytes(text)
        with pytest.raises(CheckpointError, match="damaged"):
            ExportedDetector(copy)


def test_what_an_engine_does_not_have(torch_export):
    _, path, _ = torch_export
    with pytest.raises(InputError, match="in fp32"):
        ExportedDetector(path, precision="bf16")
    with pytest.raises(InputError, match="on the CPU"):
        ExportedDetector(path, device="cuda")
    with pytest.raises(InputError, match="does not run with onnx"):
        ExportedDetector(path, engine="onnx")
    assert is_exported("a/b.onnx")
    assert not is_exported("a/b.safetensors")
    assert not is_exported(None)


def test_outputs_of_a_wrong_shape_are_an_error(exported, monkeypatch):
    monkeypatch.setattr(exported, "_run", lambda images: [np.zeros((0, 0, 0)), *[np.zeros(0)] * 3])
    with pytest.raises(ExportError, match="outputs of shapes"):
        exported.predict_arrays([np.zeros((5, 5, 3), np.uint8)])


def test_categories_are_fixed(exported, monkeypatch):
    from headclip.methods.base import method_class

    image = np.zeros((5, 5, 3), np.uint8)
    assert len(exported.predict_arrays([image], ["bottle"])) == 1  # HeadCLIP's words name no object
    monkeypatch.setattr(exported, "method", method_class("clip"))
    with pytest.raises(InputError, match="knows no other category"):
        exported.predict_arrays([image], ["bottle"])


class Shifted:
    """An exported model that is off by some amount."""

    def __init__(self, detector, by):
        self.detector, self.by, self.engine = detector, by, "torch"

    def describe(self):
        return {"calibration": {"image": {"threshold": 0.5}}}

    def predict_arrays(self, images):
        found = self.detector.predict_arrays(images)
        return [replace(p, score=p.score + self.by, anomaly_map=p.anomaly_map + 2 * self.by) for p in found]


def test_parity_measures_what_it_says(detector, images):
    scores = sorted(prediction.score for prediction in detector.predict_arrays(images))
    found = measure_parity(detector, Shifted(detector, 0.01), images, "these")
    assert found.score == pytest.approx(0.01, abs=1e-6)
    assert found.anomaly_map == pytest.approx(0.02, abs=1e-5)
    assert found.mean_map == pytest.approx(0.02, abs=1e-5)
    assert not found.ok
    assert found.threshold == 0.5
    assert found.flips == sum(score <= 0.5 < score + 0.01 for score in scores)
    assert measure_parity(detector, Shifted(detector, 0.0), images, "these").ok
    assert not Parity(1, "", float("nan"), 0.0, 0.0, 0, 0.5, "", 1e-3).ok


def test_check_images(folder, tmp_path):
    found, source = check_images(folder, 3)
    assert len(found) == 3
    assert source == str(folder)
    assert found[0].shape == (*SIZES[0], 3)
    assert found[-1].shape == (*SIZES[-1], 3)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="none of its images can be read"):
        check_images(tmp_path, 3)


def test_predict_runs_an_exported_model(torch_export, folder, tmp_path, capsys):
    _, path, _ = torch_export
    predict = ["predict", folder, "--checkpoint", path, "--quiet"]
    assert run(*predict, "--tile", "--out", tmp_path / "run") == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["settings"]["engine"] == "torch"
    assert facts["settings"]["tiles"] == {"size": 42, "overlap": 0.25}
    assert run(*predict, "--out", tmp_path / "b", "--set", "alpha=0.2") == 2
    assert "--set" in capsys.readouterr().err


def test_the_command_keeps_what_was_there_unless_the_export_is_within_tolerance(
    detector, captured, folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("headclip.cli.export.load_detector", lambda arguments, quiet: detector)
    out = tmp_path / "m.pt2"
    out.write_bytes(b"earlier")
    command = ["export", "--to", "torch", "--out", out, "--check", folder, "--check-images", 2]
    assert run(*command, "--tolerance", 0) == 1
    told = capsys.readouterr()
    assert "OUT OF TOLERANCE" in told.out
    assert "was not written" in told.err
    assert out.read_bytes() == b"earlier"
    assert [item.name for item in tmp_path.iterdir()] == ["m.pt2"]
    assert run(*command) == 0
    assert "within" in capsys.readouterr().out
    assert ExportFacts.load(out).parity["images"] == 2


def test_detector_says_who_runs_an_exported_model(torch_export):
    with pytest.raises(InputError, match="ExportedDetector"):
        Detector(make_backbone(make_config()), torch_export[1], device="cpu")


def test_importing_the_command_does_not_import_torch():
    code = "import sys, headclip.cli.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_onnx
def test_onnx_any_size_and_batch(onnx_export, images):
    detector, path, parity = onnx_export
    assert parity.ok
    assert parity.flips == 0
    assert_agrees(detector, ExportedDetector(path, batch_size=3), images)


@needs_onnx
@needs_openvino
def test_openvino_runs_the_onnx_file(onnx_export, images):
    detector, path, _ = onnx_export
    before = sys.platform == "linux" and bytes(signal_stack())
    exact = ExportedDetector(path, engine="openvino")
    assert_agrees(detector, exact, images, 2e-3)  # its weights of the resize are float32
    assert exact.describe()["precision"] == "fp32"
    rough = ExportedDetector(path, engine="openvino", precision="bf16")
    assert_agrees(detector, rough, images, 0.2)
    assert before == (sys.platform == "linux" and bytes(signal_stack()))  # it sets one, and frees that memory


@needs_onnx
def test_no_text_tower_and_open_axes(onnx_export):
    import onnx

    detector, path, _ = onnx_export
    model = onnx.load(path)
    (given,) = model.graph.input
    shape = given.type.tensor_type.shape.dim
    assert [axis.dim_param != "" for axis in shape] == [True, True, True, False]
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    text = {tuple(value.shape) for value in detector.backbone.text.parameters() if value.ndim > 1}
    vision = {tuple(value.shape) for value in detector.backbone.vision.parameters()}
    held = {tuple(value.dims) for value in model.graph.initializer}
    assert not held & (text - vision)
    size = sum(value.numel() for value in detector.backbone.vision.parameters()) * 4
    assert path.stat().st_size < 1.3 * size + 300_000
