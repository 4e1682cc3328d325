"""Volumes through a run: rows, scores, volumes that lie over the input, and not a trace of the patient."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from commands import run
from data.volume_files import SECRETS, TRACES, dicom_dataset, head_of, save, write_nifti, write_series, write_tiff
from headclip.data.volumes.model import VolumeOptions
from headclip.data.volumes.window import Window
from headclip.errors import InputError
from headclip.inference.predict import predict_run
from headclip.inference.volumes_inputs import open_inputs
from headclip.inference.volumes_predict import predict_volume
from headclip.judgement import Calibration, Promise
from headclip.judgement.calibrate import calibrate
from headclip.judgement.scored import Scored
from headclip.runs.files import RunFolderError, write_atomic
from headclip.runs.pictures import encode_map
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Row, Run
from headclip.runs.shards import Shard
from headclip.runs.volumes import read_volumes, volume_score, write_volumes
from inference.fake_detector import FakeDetector

OPTIONS = VolumeOptions(window=Window(500, 1000), top_share=0.5)
OBLIQUE = np.array([[0.1, 0, -3.9, 7], [1.1, 0.1, 0.4, -8], [0, -0.9, 0.2, 9], [0, 0, 0, 1.0]])


def run_of(folder: Path, out: Path, options=OPTIONS, resume=False, detector=None, **given):
    images = open_inputs([folder], out, options, resume=resume)
    return predict_run(detector or FakeDetector(), images, out, resume=resume, **given)


def ramp(shape=(20, 24, 6)):
    """Voxels of which no two neighbours are equal, 0 to 1000."""
    return (np.arange(np.prod(shape)) % 997).reshape(shape).astype(np.int16)


# --- scores and volumes


def test_the_anomaly_volume_lies_over_the_input(tmp_path):
    """The fake map is the picture's brightness, so the volume must equal the windowed input, voxel by voxel."""
    write_nifti(tmp_path / "in/mr.nii.gz", ramp(), OBLIQUE)
    summary = run_of(tmp_path / "in", tmp_path / "run")
    tables = read_volumes(tmp_path / "run")
    volume = tables.volumes[0]
    source, result = nibabel.load(tmp_path / "in/mr.nii.gz"), nibabel.load(tmp_path / "run" / volume.file)
    assert result.shape == source.shape
    assert np.array_equal(result.affine, source.affine)
    for name in ("qform_code", "sform_code", "xyzt_units"):
        assert result.header[name] == source.header[name]
    expected = np.clip(np.asarray(source.dataobj) / 1000, 0, 1)
    # Slices of voxels of 1.1 x 0.9 mm are judged with square pixels; back on the voxels the ramp is a little smoother.
    assert np.corrcoef(result.get_fdata().ravel(), expected.ravel())[0, 1] > 0.9
    scores = [row.score for row in summary.rows]
    assert volume.score == pytest.approx(np.mean(sorted(scores)[3:]))
    assert volume.top == 3
    assert volume.worst_slice == 1 + int(np.argmax(scores))
    for row in tables.slices:
        values = expected[:, :, row.index]
        assert row.score == pytest.approx(values.mean(), abs=0.02)
        assert row.path == f"{volume.volume}/slice-{row.slice:04d}"


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("kind", [np.int16, np.float32, ">i2"])
def test_square_voxels_come_back_exactly(tmp_path, plane, kind):
    turned = np.array([[0, 0, -2.0, 5], [2, 0, 0, 6], [0, -2, 0, 7], [0, 0, 0, 1]])
    write_nifti(tmp_path / "in/a.nii", ramp((16, 18, 20)).astype(kind), turned)
    run_of(tmp_path / "in", tmp_path / "run", VolumeOptions(window=OPTIONS.window, plane=plane))
    result = nibabel.load(next((tmp_path / "run/volumes").iterdir()))
    greys = np.rint(np.clip(ramp((16, 18, 20)) / 1000 * 255, 0, 255)) / 255
    assert np.abs(result.get_fdata() - greys).max() < 1.01 / 255
    assert np.array_equal(result.affine, turned)


def test_a_dicom_series_comes_back_in_the_patients_space(tmp_path):
    hounsfield = head_of()
    write_series(tmp_path / "in", hounsfield)
    run_of(tmp_path / "in", tmp_path / "run", VolumeOptions(window=Window(0, 400)))
    row = read_volumes(tmp_path / "run").volumes[0]
    result = nibabel.load(tmp_path / "run" / row.file)
    assert (row.kind, row.slices, row.top) == ("dicom", 8, 1)
    expected = np.clip((hounsfield.transpose(2, 1, 0) + 200) / 400, 0, 1)
    assert np.abs(result.get_fdata() - expected).max() < 1 / 255
    corner = result.affine @ [3, 4, 5, 1]  # LPS (-10 + 3 * 0.5, -20 + 4 * 0.5, 25), turned to RAS
    assert np.allclose(corner[:3], [8.5, 18, 25])


def test_tiff_pages_come_back_as_pages(tmp_path):
    pages = [np.full((20, 30), value, np.uint8) for value in (0, 128, 255)]
    pages.append(np.full((8, 9), 51, np.uint8))
    write_tiff(tmp_path / "in/stack.tif", pages)
    summary = run_of(tmp_path / "in", tmp_path / "run")
    row = read_volumes(tmp_path / "run").volumes[0]
    assert (row.volume, row.file, row.slices) == ("stack.tif", "volumes/stack.tif.anomaly.tif", 4)
    assert row.score == pytest.approx((1 + 128 / 255) / 2)
    with Image.open(tmp_path / "run" / row.file) as image:
        assert image.n_frames == 4
        for index, page in enumerate(pages):
            image.seek(index)
            assert image.mode == "I;16"
            assert np.array_equal(np.asarray(image), page.astype(np.uint16) * 257)
    assert [one.path for one in summary.rows] == [f"stack.tif/page-000{n}" for n in range(1, 5)]
    assert Run.open(tmp_path / "run").facts["root"] == str(tmp_path / "in")


def test_failed_slices_are_nothing_in_the_volume(tmp_path):
    values = np.full((12, 12, 4), 500, np.float32)
    values[..., 2] = np.nan
    write_nifti(tmp_path / "in/a.nii", values)
    write_nifti(tmp_path / "in/four.nii", np.zeros((9, 9, 3, 2), np.int16))
    summary = run_of(tmp_path / "in", tmp_path / "run")
    good, bad = sorted(read_volumes(tmp_path / "run").volumes, key=lambda row: row.status, reverse=True)
    assert (good.slices, good.failed) == (4, 1)
    assert "1 slice(s) could not be judged and are 0" in good.notes
    assert np.unique(nibabel.load(tmp_path / "run" / good.file).get_fdata()[..., 2]).tolist() == [0]
    assert (bad.status, bad.score, bad.file) == ("failed", None, None)
    assert "4 dimensions" in bad.reason
    assert {row.reason for row in summary.failed} == {bad.reason, "no voxel of the slice is a finite number"}


def test_tables_agree(tmp_path):
    write_nifti(tmp_path / "in/a.nii", ramp())
    write_tiff(tmp_path / "in/b.tif", [np.zeros((9, 9), np.uint8)] * 2)
    run_of(tmp_path / "in", tmp_path / "run")
    for name in ("volumes", "slices"):
        lines = pq.read_table(tmp_path / f"run/{name}.parquet").to_pylist()
        with (tmp_path / f"run/{name}.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert len(lines) == len(table) > 1
        for line, written in zip(lines, table, strict=True):
            as_text = {k: f"{v:.6f}" if isinstance(v, float) else "" if v is None else str(v) for k, v in line.items()}
            assert written == as_text


@pytest.mark.parametrize(("share", "expected"), [(0.1, (0.9, 1)), (0.4, (0.8, 2)), (0.41, (0.7, 3)), (1.0, (0.5, 5))])
def test_volume_score(share, expected):
    score, top = volume_score([0.1, 0.9, 0.5, 0.7, 0.3], share)
    assert (pytest.approx(score), top) == expected


def test_predict_volume(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", ramp((16, 18, 6)), np.diag([2.0, 2, 2, 1]))
    found = predict_volume(FakeDetector(), tmp_path / "a.nii.gz", OPTIONS)
    assert found.anomaly_volume.shape == (16, 18, 6)
    assert np.abs(found.anomaly_volume - np.clip(ramp((16, 18, 6)) / 1000, 0, 1)).max() < 1 / 255
    assert np.array_equal(found.affine, np.diag([2.0, 2, 2, 1]))
    assert found.score == pytest.approx(np.mean(sorted(found.slice_scores)[3:]))
    write_tiff(tmp_path / "b.tif", [np.full((9, 9), n, np.uint8) for n in (0, 255)])
    pages = predict_volume(FakeDetector(), tmp_path / "b.tif")
    assert pages.affine is None
    assert pages.anomaly_volume.mean(axis=(1, 2)).tolist() == [0, 1]
    with pytest.raises(InputError, match="0 volumes and 1 images"):
        predict_volume(FakeDetector(), write_tiff(tmp_path / "c.tif", [np.zeros((9, 9), np.uint8)]))


def test_a_volume_is_never_held(tmp_path):
    """Reading every slice and writing the anomaly volume take a part of the volume's 10.5 MB (16 bits)."""
    write_nifti(tmp_path / "in/a.nii.gz", np.zeros((256, 256, 80), np.int16))
    images = open_inputs([tmp_path / "in"], tmp_path / "run", VolumeOptions(window=Window(0, 1)))
    write_atomic(tmp_path / "run", "one.png", encode_map(np.full((256, 256), 7, np.uint16)))
    rows = [Row(file.name, "ok", score=0.5, height=256, width=256, map="one.png") for file in images]
    write_volumes(tmp_path / "run", images, rows)  # imports what writing needs
    tracemalloc.start()
    for file in images:
        file.decode()
    write_volumes(tmp_path / "run", images, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000
    written = nibabel.load(next((tmp_path / "run/volumes").iterdir()))
    assert np.unique(np.asarray(written.dataobj.get_unscaled())).tolist() == [7]


# --- resuming and reporting


class Interrupting(FakeDetector):
    """Stops as Ctrl-C does, after some batches."""

    def __init__(self, batches: int) -> None:
        super().__init__(batch_size=1)
        self.left = batches

    def predict_arrays(self, images, /):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().predict_arrays(images)


def test_an_interrupted_run_goes_on_under_the_same_names(tmp_path):
    write_series(tmp_path / "in/ct", head_of())
    write_nifti(tmp_path / "in/mr.nii.gz", ramp())
    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path / "in", tmp_path / "run", detector=Interrupting(5))
    before = {row.path for row in Run.open(tmp_path / "run").rows}
    summary = run_of(tmp_path / "in", tmp_path / "run", resume=True)
    assert summary.skipped == len(before) == 5
    assert before < {row.path for row in summary.rows}
    assert len(summary.rows) == 14
    whole = run_of(tmp_path / "in", tmp_path / "whole")
    assert sorted(row.score for row in whole.rows) == sorted(row.score for row in summary.rows)
    write_nifti(tmp_path / "in/mr.nii.gz", ramp()[::-1])  # another volume under the same name
    again = run_of(tmp_path / "in", tmp_path / "run", resume=True)
    assert again.judged == 6
    with pytest.raises(RunFolderError, match="other settings"):
        run_of(tmp_path / "in", tmp_path / "run", VolumeOptions(window=Window(1, 2)), resume=True)


def test_a_growing_folder_is_judged_again_and_again(tmp_path):
    """New volumes and new slices are added; a series that grows keeps its name."""
    write_series(tmp_path / "late", head_of(6, 16))
    files = sorted((tmp_path / "late").iterdir())
    (tmp_path / "in").mkdir()
    judged = []
    for step in range(3):
        for file in files[2 * step : 2 * step + 2]:
            file.rename(tmp_path / "in" / file.name)
        if step == 1:
            write_nifti(tmp_path / "in/mr.nii", ramp((10, 10, 3)))
        judged.append(run_of(tmp_path / "in", tmp_path / "run", resume=True))
    ct, mr = sorted(read_volumes(tmp_path / "run").volumes, key=lambda row: row.kind)
    assert (ct.slices, mr.slices) == (6, 3)
    assert len(judged[2].rows) == 9
    whole = run_of(tmp_path / "in", tmp_path / "whole")
    assert sorted(row.score for row in judged[2].rows) == sorted(row.score for row in whole.rows)
    assert nibabel.load(tmp_path / "run" / ct.file).shape == (16, 16, 6)


def test_overwriting_takes_volumes_away(tmp_path):
    write_nifti(tmp_path / "in/mr.nii", ramp())
    run_of(tmp_path / "in", tmp_path / "run")
    write_tiff(tmp_path / "other/a.tif", [np.zeros((9, 9), np.uint8)])
    run_of(tmp_path / "other", tmp_path / "run", overwrite=True)
    assert not list((tmp_path / "run").glob("volumes*"))
    assert read_volumes(tmp_path / "run").volumes == ()
    assert 'aria-label="Volumes"' not in (tmp_path / "run/report.html").read_text()


def test_the_report_shows_volumes_and_still_does_when_judged_again(tmp_path):
    write_nifti(tmp_path / "in/mr.nii", ramp())
    write_nifti(tmp_path / "in/four.nii", np.zeros((9, 9, 3, 2), np.int16))
    run_of(tmp_path / "in", tmp_path / "run")
    name = next(row.volume for row in read_volumes(tmp_path / "run").volumes if row.status == "ok")
    for attempt in range(2):
        page = (tmp_path / "run/report.html").read_text()
        assert f'<p class="name">{name}</p>' in page
        assert f'href="volumes/{name}.anomaly.nii.gz"' in page
        assert "Names are neutral" in page
        data = json.loads(page.split('<script id="data" type="application/json">')[1].split("</script>")[0])
        assert data["root"] == ""
        best = data["volumes"][0]
        assert best["n"] == name
        scores = {image["n"]: image.get("s") for image in data["images"]}
        assert [scores[slice_name] for slice_name in best["w"]] == sorted(
            (scores[slice_name] for slice_name in best["p"]), reverse=True
        )
        assert "4 dimensions" in page
        if attempt == 0:
            rejudge(tmp_path / "run", None)


def write_flat(folder, names, seed=0):
    """Volumes of 12 slices, nearly of one brightness, 0.1 to 0.3; in those named "bad" two slices are bright."""
    rng = np.random.default_rng(seed)
    for name in names:
        voxels = rng.integers(100, 300) + rng.integers(0, 30, (9, 10, 12))
        if name.startswith("bad"):
            voxels[..., 4:6] += 500
        write_nifti(folder / f"{name}.nii.gz", voxels.astype(np.int16))


CALIBRATE = ("--false-alarms", "0.05", "--out", "c.json")
PREDICT = ("--window", "500,1000", "--keep-names", "--volume-share", "0.1")


def test_volumes_have_verdicts_of_their_own(tmp_path, monkeypatch, fake_command, capsys):
    monkeypatch.chdir(tmp_path)
    write_flat(tmp_path / "normal", [f"n{number}" for number in range(24)])
    write_flat(tmp_path / "today", ["good", "bad"], seed=1)
    assert run("predict", "normal", "--out", "n", *PREDICT) == 0
    assert run("calibrate", "n", *CALIBRATE) == 0
    text = capsys.readouterr().out
    normal = [row.score for row in read_volumes(tmp_path / "n").volumes]
    assert f"Volume threshold {max(normal):.6f}, above it review: the same promise about volumes, from 24" in text
    found = Calibration.load("c.json")
    assert found.volume.threshold == max(normal)
    assert found.volume_share == 0.1
    assert run("predict", "today", "--out", "t", *PREDICT, "--calibration", "c.json") == 0
    assert "Of volumes: 0 defect, 1 to review, 1 ok" in capsys.readouterr().out
    verdicts = {row.volume: row.verdict for row in read_volumes(tmp_path / "t").volumes}
    assert verdicts == {"good.nii.gz": "ok", "bad.nii.gz": "review"}
    with (tmp_path / "t/volumes.csv").open() as handle:
        assert {row["volume"]: row["verdict"] for row in csv.DictReader(handle)} == verdicts
    assert '<span class="chip review">review</span>' in (tmp_path / "t/report.html").read_text()


def test_judging_again_changes_verdicts_of_volumes(tmp_path, monkeypatch, fake_command, capsys):
    monkeypatch.chdir(tmp_path)
    write_flat(tmp_path / "today", ["good", "bad"], seed=1)
    assert run("predict", "today", "--out", "t", *PREDICT) == 0
    settings = Run.open("t").settings
    slices = [row.score for row in Run.open("t").ok] * 10
    scored = Scored([str(n) for n in range(240)], slices, None, volumes=(0.3,) * 90, volume_share=0.1)
    calibrate(scored, settings, Promise(0.05)).save("c.json")

    def verdicts():
        return {row.volume: row.verdict for row in read_volumes(tmp_path / "t").volumes}

    assert set(verdicts().values()) == {None}
    assert run("rejudge", "t", "--calibration", "c.json") == 0
    assert "Of volumes: 1 defect, 0 to review, 1 ok" in capsys.readouterr().out
    assert verdicts() == {"good.nii.gz": "ok", "bad.nii.gz": "defect"}
    assert '<span class="chip defect">defect</span>' in (tmp_path / "t/report.html").read_text()
    assert run("rejudge", "t", "--threshold", "0.5") == 0  # of images; nothing is known of volumes then
    assert set(verdicts().values()) == {None}
    calibrate(replace(scored, volume_share=0.5), settings, Promise(0.05)).save("c.json")
    assert run("rejudge", "t", "--calibration", "c.json") == 0
    assert "No verdicts of volumes: the calibration is about scores of 50 % of the slices" in capsys.readouterr().out
    assert set(verdicts().values()) == {None}


def test_few_volumes_have_no_threshold(tmp_path, monkeypatch, fake_command, capsys):
    monkeypatch.chdir(tmp_path)
    write_flat(tmp_path / "normal", [f"n{number}" for number in range(4)])
    shutil.copy(tmp_path / "normal/n1.nii.gz", tmp_path / "normal/n9.nii.gz")
    assert run("predict", "normal", "--out", "n", *PREDICT) == 0
    assert run("calibrate", "n", *CALIBRATE) == 0
    assert "No threshold of volumes: 4 cannot keep the promise, 19 could" in capsys.readouterr().out
    assert Calibration.load("c.json").volume is None
    assert run("calibrate", "n", *CALIBRATE, "--tightest") == 0
    assert "above it review: at most 20 % of normal volumes, from 4 of them" in capsys.readouterr().out
    assert Calibration.load("c.json").volume.threshold == max(row.score for row in read_volumes(tmp_path / "n").volumes)


def test_volumes_are_not_divided(tmp_path):
    write_nifti(tmp_path / "in/mr.nii", ramp())
    with pytest.raises(InputError, match="not divided among shards"):
        run_of(tmp_path / "in", tmp_path / "run", shard=Shard(1, 2))


# --- identifiers


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where any identifier or source path occurs below a folder, in names and contents, or in texts."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes().lower() if path.is_file() else b""
        if path.is_file() and path.suffix == ".gz":
            content += gzip.decompress(path.read_bytes()).lower()
        if path.is_file() and path.suffix == ".parquet":
            content += str(pq.read_table(path).to_pylist()).lower().encode()
        relative = path.relative_to(folder).as_posix().lower()
        found += [f"{relative}: {trace}" for trace in TRACES if trace.encode() in content or trace in relative]
    return found + [f"{text[:80]}: {trace}" for text in texts for trace in TRACES if trace in text.lower()]


@pytest.fixture
def patients(tmp_path) -> Path:
    """Files and folders named after a patient, good and bad."""
    folder = tmp_path / "Quxberry_Zebulon_19470313"
    write_series(folder / "20190822", head_of(4, 24))
    write_nifti(folder / "Quxberry.nii.gz", ramp((12, 12, 3)))
    write_nifti(folder / "Zebulon_4d.nii", np.zeros((9, 9, 3, 2), np.int16))
    whole = (folder / "20190822/Quxberry_001.dcm").read_bytes()
    (folder / "PID-90210-cut.dcm").write_bytes(whole[:900])
    (folder / "PID-90210-text.dcm").write_bytes(b"Quxberry^Zebulon" * 30)
    odd = whole.replace(b"19470313", b"Quxberry").replace(b"-1024 ", b"Zebulo")
    (folder / "odd.dcm").write_bytes(odd)
    save(dicom_dataset(np.zeros((64, 9), np.uint8), 70, BurnedInAnnotation="YES"), folder / "us.dcm")
    return folder


def test_no_identifier_leaves_a_trace(patients, tmp_path, caplog, recwarn):
    caplog.set_level("DEBUG")
    out = tmp_path / "run"
    summary = run_of(patients, out)
    assert len(summary.ok) >= 7
    assert len(summary.failed) == 5  # a copy, a cut copy, a text, four dimensions, burned-in identifiers
    reasons = " ".join(row.reason for row in summary.failed)
    assert leaks(out, caplog.text, reasons, *(str(warning.message) for warning in recwarn)) == []
    facts = (out / "run.json").read_text()
    assert str(tmp_path) not in facts
    for entry in (out / "progress.jsonl").read_text().splitlines():
        values = json.loads(entry)
        times = [path.stat().st_mtime_ns for path in patients.rglob("*")]
        assert values["mtime_ns"] not in times
    with pytest.raises(KeyboardInterrupt):
        run_of(patients, tmp_path / "stopped", detector=Interrupting(3))
    assert leaks(tmp_path / "stopped") == []


def test_the_search_for_traces_finds_them(patients, tmp_path):
    run_of(patients, tmp_path / "run", VolumeOptions(keep_names=True))
    found = leaks(tmp_path / "run")
    assert any(line.startswith("run.json") for line in found)
    assert any(line.startswith("maps/") for line in found)
    assert all(str(value) for value in SECRETS.values())


@pytest.fixture
def fake_command(monkeypatch):
    """`headclip ...` with the fake model; returns its exit status."""
    monkeypatch.setattr("headclip.cli.predict.load_detector", lambda arguments, quiet: FakeDetector())

    return run


@pytest.mark.parametrize("debug", ["", "1"])
def test_the_command_leaves_no_trace(patients, tmp_path, fake_command, monkeypatch, capfd, debug):
    """stdout, stderr and the whole folder of the command, also with its log on; the key tells who is who."""
    monkeypatch.setenv("HEADCLIP_DEBUG", debug)
    out, key = tmp_path / "run", tmp_path / "who.csv"
    assert fake_command("predict", str(patients), "--out", str(out), "--window", "50,400", "--key", str(key)) == 0
    captured = capfd.readouterr()
    assert leaks(out, captured.out, captured.err) == []
    assert "volumes judged" in captured.out
    with key.open(newline="") as file:
        known = {row["path"]: row["file"] for row in csv.DictReader(file)}
    with (out / "results.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert set(names) == set(known)
    assert all(Path(path).exists() and "Quxberry" in path for path in known.values())


def test_an_interruption_does_not_repeat_the_inputs(patients, tmp_path, fake_command, monkeypatch, capfd):
    monkeypatch.setattr("headclip.cli.predict.load_detector", lambda arguments, quiet: Interrupting(1))
    assert fake_command("predict", str(patients), "--out", str(tmp_path / "run")) == 130
    captured = capfd.readouterr()
    assert "To go on: the same command with --resume" in captured.err
    assert leaks(tmp_path / "run", captured.out, captured.err) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--window", "40"], "--window 40: write CENTRE,WIDTH"),
        (["--volume-share", "0"], "top share"),
        (["--key", "run/key.csv"], "outside the run folder"),
        (["--shard", "1/2"], "not divided among shards"),
        (["--plane", "coronal"], "--plane cuts NIfTI"),
    ],
)
def test_wrong_options_are_said(tmp_path, fake_command, monkeypatch, capfd, options, reason):
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "in", head_of(2, 16))
    assert fake_command("predict", "in", "--out", "run", *options) == 2
    assert reason in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["stack", "series"])
def test_calibrating_on_volumes_says_to_judge_them_first(tmp_path, monkeypatch, capsys, kind):
    """Of a stack the first page alone would draw a line for all of them, and DICOM would be called no image."""
    monkeypatch.chdir(tmp_path)
    if kind == "stack":
        write_tiff(tmp_path / "in/a.tif", [np.full((20, 20), value, np.uint8) for value in (10, 200)])
    else:
        write_series(tmp_path / "in", head_of(2, 16))
    assert run("calibrate", "in", "--out", "c.json") == 2
    error = capsys.readouterr().err
    assert "1 of the files or series are volumes" in error
    assert "judge them with `headclip predict ... --out RUN`, then name RUN here" in error


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    write_nifti(tmp_path / "in/mr.nii", ramp())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"pip install 'headclip\[nifti\]'"):
        run_of(tmp_path / "in", tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom/a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    with pytest.raises(InputError, match=r"pip install 'headclip\[dicom\]'"):
        run_of(tmp_path / "dicom", tmp_path / "run2")
