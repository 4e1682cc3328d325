"""Verdicts and regions from Python: the same as a run has, from a file, a calibration, criteria, or the checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from commands import run
from headclip import Detector, TiledDetector
from headclip.errors import InputError
from headclip.judgement import Calibration, CalibrationError, Criteria, Verdict
from headclip.runs.run import Run
from inference.test_peers import write_alike


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_alike(tmp_path_factory.mktemp("parts") / "in", 6, spot=(2, 4))


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    folder = tmp_path_factory.mktemp("line")
    good = write_alike(folder / "good", 30, spot=())
    for index in range(6):  # the noise of the parts
        (good / f"{index}.png").unlink()
    assert run("calibrate", good, "--false-alarms", "0.1", "--out", folder / "line.json") == 0
    return folder / "line.json"


@pytest.fixture(scope="module")
def plain():
    return Detector(device="cpu", batch_size=4)


def test_predictions_have_the_verdicts_of_a_run(parts, line, tmp_path):
    assert run("predict", parts, "--calibration", line, "--out", tmp_path / "run") == 0
    rows = {row.path: row for row in Run.open(tmp_path / "run").rows}
    detector = Detector(device="cpu", batch_size=4, calibration=line)
    files = sorted(parts.glob("*.png"))
    found = detector.predict(files)
    for path, one in zip(files, found, strict=True):
        row = rows[path.name]
        assert (one.verdict, len(one.regions)) == (row.verdict, row.regions), path.name
        assert one.alarm == (one.verdict is not Verdict.ok)
    assert {one.verdict for one in found} == {Verdict.ok, Verdict.review}
    assert found[2].regions[0].peak == max(region.peak for region in found[2].regions)


def test_without_thresholds_there_is_no_verdict(plain, parts):
    (one,) = plain.predict(parts / "2.png")
    assert (one.verdict, one.alarm, one.regions) == (None, None, ())


def test_all_forms_of_thresholds_say_the_same(plain, parts, line):
    files = sorted(parts.glob("*.png"))
    said = []
    for given in (line, str(line), Calibration.load(line), Calibration.load(line).criteria()):
        plain.set_calibration(given)
        said.append([(one.verdict, one.regions) for one in plain.predict(files)])
    assert all(each == said[0] for each in said)
    plain.set_calibration("default")
    assert {one.verdict for one in plain.predict(files)} <= set(Verdict)
    plain.set_calibration(Criteria.manual(0.0, pixel=0.0))
    assert all(one.verdict is Verdict.defect and one.regions for one in plain.predict(files))
    plain.set_calibration(None)
    assert plain.predict(files[0])[0].verdict is None


def test_thresholds_of_another_model_are_refused_and_none_stay(plain, parts, line):
    with pytest.raises(CalibrationError, match="another model"):
        Detector(plain.backbone, device="cpu", settings={"alpha": 0.3}, calibration=line)
    with pytest.raises(InputError, match="No thresholds"):
        Detector(plain.backbone, device="cpu", settings={"alpha": 0.3}, calibration="default")
    with pytest.raises(InputError, match="headclip calibrate"):
        Detector(plain.backbone, device="cpu", method="clip", calibration="default")
    plain.set_calibration(line)
    with pytest.raises(CalibrationError, match="--reference"):
        plain.set_references(sorted(parts.glob("*.png"))[:2])
    assert plain.criteria is None
    plain.set_calibration(None)
    plain.set_references(None)


def test_tiles_have_thresholds_of_their_own(plain, parts, line):
    plain.set_calibration(line)
    with pytest.raises(InputError, match="whole images"):
        TiledDetector(plain)
    plain.set_calibration(None)
    with pytest.raises(CalibrationError, match="another model"):
        TiledDetector(plain, calibration=line)
    tiled = TiledDetector(plain, tile=64, calibration=Criteria.manual(0.0))
    assert tiled.predict([np.zeros((96, 96, 3), np.uint8)])[0].verdict is Verdict.defect
