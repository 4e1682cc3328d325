"""Exports with reference images built in: what the graph holds of them, engines, the command."""

from __future__ import annotations

import numpy as np
import pytest

from commands import run
from export.test_export import assert_agrees, build, needs_onnx
from export.test_graph import alike
from headclip.errors import InputError
from headclip.export import export_model
from headclip.inference.exported import ExportedDetector
from headclip.inference.tiles import TiledDetector
from headclip.judgement import Calibration, Promise
from headclip.judgement.calibrate import calibrate
from headclip.judgement.scored import Scored

pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")
SIZES = [(60, 80), (60, 80), (33, 50), (130, 40)]


@pytest.fixture(scope="module")
def images():
    """Eight that look alike, and one with a spot."""
    found = [image for pair in alike(SIZES) for image in pair]
    spot = found[0].copy()
    spot[20:30, 30:45] = 0
    return [*found, spot]


@pytest.fixture(scope="module")
def detector(images):
    return build(references=images[1:4])


@pytest.fixture(scope="module")
def exported(detector, captured, folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "tiny.pt2"
    assert export_model(detector, "torch", path, check=folder, tolerance=1e-3).ok
    return ExportedDetector(path)


def test_torch_compares_as_the_detector_does(detector, exported, images):
    assert_agrees(detector, exported, images, tolerance=5e-4)
    alone = build().predict_arrays(images)
    assert (
        max(abs(one.score - two.score) for one, two in zip(alone, exported.predict_arrays(images), strict=True)) > 1e-2
    )


def test_it_says_which_they_are(detector, exported, tmp_path):
    assert exported.describe()["references"] == detector.references
    scored = Scored([str(i) for i in range(30)], np.linspace(0.1, 0.4, 30).tolist(), None)
    found = calibrate(scored, detector.describe(), Promise(0.1))
    found.save(tmp_path / "line.json")
    Calibration.load(tmp_path / "line.json").check_fits(exported.describe())
    with pytest.raises(InputError, match="--reference out"):
        TiledDetector(exported)


@needs_onnx
def test_onnx_compares_as_the_detector_does(exported, detector, images, folder, tmp_path):
    """After torch's, since the conversion uses the program up."""
    assert export_model(detector, "onnx", tmp_path / "tiny.onnx", check=folder, tolerance=1e-3).ok
    assert_agrees(detector, ExportedDetector(tmp_path / "tiny.onnx"), images, tolerance=5e-4)


def test_the_command_builds_them_in(folder, tmp_path, monkeypatch, capsys):
    """The embedded model; capturing it is what the other tests do with a small one."""
    given = []
    monkeypatch.setattr("headclip.export.export_model", lambda detector, *_, **__: given.append(detector) or _Fine())
    (tmp_path / "line.onnx").write_bytes(b"")
    assert run("export", "--reference", folder, "--to", "onnx", "--out", tmp_path / "line.onnx") == 0
    assert len(given[0].references) == 9
    assert run("predict", folder, "--reference", folder, "--checkpoint", tmp_path / "line.onnx", "--out", "run") == 2
    assert "is an exported model, in which that is fixed" in " ".join(capsys.readouterr().err.split())


class _Fine:
    ok = True

    def lines(self):
        return []
