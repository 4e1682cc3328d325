"""The command as its users meet it: output, messages, exit statuses."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from commands import run
from headclip.cli.app import main
from headclip.cli.common import forgiving_output
from headclip.cli.progress import stage_bars
from headclip.data.formats import EXTENSIONS, HEIC_ENDINGS
from headclip.errors import BackboneError
from headclip.runs.run import Run
from headclip.version import __version__
from inference.fake_detector import FakeDetector
from inference.pictures import BAD_FILES, write_bad_files, write_pictures


class CliDetector(FakeDetector):
    """The fake detector with the constructor of the real one."""

    given: dict

    def __init__(self, backbone, checkpoint, *, device, precision, image_size, batch_size):
        if backbone == "unknown":
            raise BackboneError("unknown backbone 'unknown'. Possible are embedded, ViT-B-32")
        super().__init__(backbone, batch_size or 4)
        type(self).given = {
            "checkpoint": checkpoint,
            "device": device,
            "precision": precision,
            "image_size": image_size,
        }


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with `in`, twelve pictures; the model is the fake one."""
    monkeypatch.setattr("headclip.inference.detector.Detector", CliDetector)
    monkeypatch.delenv("HEADCLIP_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", 12)
    return tmp_path


def test_predict(folder, capsys):
    assert run("predict", "in", "--out", "run", "--top", "3", "--image-size", "64", "--batch-size", "2") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert "Most anomalous images" in lines[0]
    best = sorted(Run.open("run").ok, key=lambda row: -row.score)[:3]
    assert lines[1].split() == ["#", "score", "size", "image"]
    for line, row in zip(lines[2:5], best, strict=True):
        assert row.path in line
        assert f"{row.score:.4f}" in line
    assert "12 images judged, 0 failed" in captured.out
    assert f"Report: {Path('run/report.html')}" in lines[-1]
    assert CliDetector.given == {"checkpoint": None, "device": "auto", "precision": "auto", "image_size": 64}
    assert Run.open("run").facts["arguments"]["inputs"] == ["in"]


def test_the_best_have_their_verdicts(folder, capsys):
    thresholds = ("--threshold", "0.5", "--pixel-threshold", "0.9")
    assert run("predict", "in", "--out", "run", "--top", "12", *thresholds) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["#", "score", "verdict", "regions", "size", "image"]
    best = sorted(Run.open("run").ok, key=lambda row: -row.score)
    shown = [tuple(line.split()[1:4]) for line in lines[2:14]]
    assert shown == [(f"{row.score:.4f}", row.verdict, str(row.regions)) for row in best]


def test_bad_files_are_named_and_the_rest_goes_on(folder, capsys):
    write_bad_files(folder / "in")
    assert run("predict", "in", "-o", "run") == 0
    out = capsys.readouterr().out
    assert "12 images judged, 5 failed" in out
    for name, reason in BAD_FILES.items():
        assert any(name in line and reason in line for line in out.splitlines())


def test_max_pixels_can_be_raised_and_lowered(folder, capsys):
    assert run("predict", "in", "-o", "run", "--max-pixels", "1200") == 0
    assert "5 failed" in capsys.readouterr().out
    assert run("predict", "in", "-o", "run", "--resume", "--max-pixels", "1401") == 0
    assert "12 images judged, 7 of them earlier, 0 failed" in capsys.readouterr().out


def test_rows_of_images_that_are_gone_are_counted_and_pointed_out(folder, capsys):
    assert run("predict", "in", "-o", "run", "-q") == 0
    (Path("in") / Run.open("run").rows[0].path).unlink()
    assert run("predict", "in", "-o", "run", "--resume") == 0
    out = capsys.readouterr().out
    assert "12 images judged, 12 of them earlier, 0 failed" in out
    assert "Of these on record, not among the inputs any more: 1;" in out


def test_pictures_that_nothing_reads_are_pointed_out(folder, capsys, monkeypatch):
    monkeypatch.setattr("headclip.data.discover.EXTENSIONS", EXTENSIONS - set(HEIC_ENDINGS))
    for name in ("1.HEIC", "2.heic", "film.mov", "brain.nii.txt"):
        (folder / "in" / name).touch()
    assert run("predict", "in", "-o", "run") == 0
    captured = capsys.readouterr()
    assert "12 images judged, 0 failed" in captured.out
    assert "note: passed over, as no image that can be read: 2 .heic, 1 .mov; save them as PNG or JPEG" in captured.err
    assert "or read HEIC with pip install headclip[heic]" in captured.err
    assert run("predict", "in", "-o", "other", "-q") == 0
    assert capsys.readouterr().err == ""


def test_one_image_is_one_image(folder, capsys):
    assert run("predict", str(next(Path("in").rglob("*.*"))), "-o", "run") == 0
    assert "\n1 image judged, 0 failed" in capsys.readouterr().out


def test_nothing_but_failures_is_exit_status_1(folder, capsys):
    (folder / "empty").mkdir()
    (folder / "empty/a.png").touch()
    assert run("predict", "empty", "-o", "run") == 1
    captured = capsys.readouterr()
    assert "error: none of the 1 images could be judged" in captured.err
    assert "a.png: the file is empty" in captured.out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_names_that_the_console_cannot_write_come_out_as_escapes(folder, monkeypatch, encoding):
    Path("in/left/part 1.png").replace("部品.png")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2)]
    monkeypatch.setattr("sys.stdout", streams[0])
    monkeypatch.setattr("sys.stderr", streams[1])
    assert run("predict", "部品.png", "--out", "run") == 0
    out = streams[0].buffer.getvalue().decode(encoding)
    assert r"\u90e8\u54c1.png" in out
    assert "Report:" in out


def test_output_that_is_no_file_is_left_as_it_is(monkeypatch):
    """As under pythonw, or where somebody captures it."""
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    forgiving_output()
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="ignore")
    monkeypatch.setattr("sys.stdout", stream)
    forgiving_output()
    assert stream.errors == "ignore"  # by PYTHONIOENCODING: what the user asked for


def test_names_give_the_terminal_no_orders(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    Path("in/left/part 1.png").replace("in/left/\x1b[2J\x1b]0;x\x07\r.png")
    Path("in/left/\x9b31m.png").write_text("no image")
    assert run("predict", "in", "--out", "run", "--top", "20") == 0
    assert run("predict", "no\x1b[2Jthing", "--out", "other") == 2
    found = capsys.readouterr()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", found.out + found.err)
    assert r"\x1b[2J\x1b]0;x\x07\x0d.png" in found.out
    assert r"\x9b31m.png" in found.out
    assert r"nothing matches no\x1b[2Jthing" in found.err


def test_stages_named_by_folders_are_not_markup(capsys):
    with stage_bars(quiet=False) as show:
        show("judging [/nothing] \x1b[2J", 1, 1, 0)
    assert r"judging [/nothing] \x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "-o", "run"], "error: nowhere does not exist"),
        (["void", "-o", "run"], "error: the folder void holds no image"),
        (["in", "-o", "taken"], "error: taken is not empty and holds no run"),
        (["in", "-o", "run", "--backbone", "unknown"], "error: unknown backbone 'unknown'. Possible are"),
        (["in"], "Missing option '--out'"),
        (["-o", "run"], "Missing argument 'INPUT...'"),
        (["in", "-o", "run", "--device", "tpu"], "'tpu' is not one of"),
        (["in", "-o", "run", "--batch-size", "0"], "--batch-size"),
        (["in", "-o", "run", "--resume", "--overwrite"], "exclude each other"),
        (["", "-o", "run"], "error: the argument after predict is empty, perhaps by a variable that is not set"),
        (["in", "", "-o", "run"], "error: the argument after in is empty"),
        (["in", "-o", ""], "error: the argument after -o is empty"),
        (["in", "--out="], "error: --out is empty"),
    ],
)
def test_wrong_usage_is_exit_status_2_without_traceback(folder, capsys, arguments, message):
    (folder / "void").mkdir()
    (folder / "taken").mkdir()
    (folder / "taken/file").touch()
    assert run("predict", *arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert not (folder / "run").exists()


def test_quiet_prints_nothing(folder, capfd):
    assert run("predict", "in", "-o", "run", "--quiet") == 0
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_file_names_are_not_markup(folder, capsys):
    (folder / "in/left/part 1.png").rename(folder / "in/[red]:smile:[link=x].png")
    assert run("predict", "in", "-o", "run", "--top", "20") == 0
    assert "[red]:smile:[link=x].png" in capsys.readouterr().out


def interrupt(monkeypatch, start) -> None:
    """Call `start` with a detector that a Ctrl-C stops at its first image."""

    def stop(self, image):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CliDetector, "_predict", stop)
        start()


def test_interruption_says_how_to_go_on(folder, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    options = ["--overwrite", "--batch-size", "2", "--device", "cpu", "--set", "alpha=0.5", "--set", "sigma=2"]
    monkeypatch.setattr(CliDetector, "__init__", lambda self, *given, **named: FakeDetector.__init__(self))
    interrupt(monkeypatch, lambda: run("predict", "in", "-o", "my run", *options))
    err = capsys.readouterr().err
    assert "interrupted; 0 of 12 images are done and kept" in err
    again = "headclip predict in --out 'my run' --set alpha=0.5 --set sigma=2 --device cpu --batch-size 2 --resume"
    assert again in err
    assert run(*shlex.split(again)[1:]) == 0


def test_the_hint_of_an_interrupted_demo_is_a_command_that_goes_on(folder, capsys, monkeypatch):
    """The demo calls the function of the command, so that the words of its process are not the command's."""
    from headclip.cli.predict import predict

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["headclip/demo.py", "--each", "2"])

    def start():
        with pytest.raises(typer.Exit):
            predict(["in"], Path("run"), overwrite=True)

    interrupt(monkeypatch, start)
    hint = capsys.readouterr().err.split("To go on: ")[1].strip()
    words = shlex.split(hint)
    assert words[1:] == ["-m", "headclip", "predict", "in", "--out", "run", "--resume"]
    assert Path(words[0]).resolve() == Path(sys.executable).resolve()
    assert run(*words[3:]) == 0


def test_each_folder_may_name_the_category(folder, monkeypatch):
    given = []

    class Named(FakeDetector):
        method = SimpleNamespace(uses_category=True)

        def predict_arrays(self, images, categories, /):
            given.extend(categories)
            return super().predict_arrays(images)

    class Unnamed(Named):
        method = SimpleNamespace(uses_category=False)

        def predict_arrays(self, images, /):
            return FakeDetector.predict_arrays(self, images)

    for kind in (Named, Unnamed):
        monkeypatch.setattr("headclip.cli.predict.load_detector", lambda arguments, quiet, kind=kind: kind())
        assert run("predict", "in", "-o", kind.__name__, "--category", "from-folder") == 0
    assert given == [(folder / "in" / row.path).parent.name for row in Run.open("Named").rows]
    assert len(set(given)) > 1
    assert Run.open("Named").settings["category"] == "each image's own"
    assert "category" not in Run.open("Unnamed").settings
    assert run("predict", "in", "-o", "Named", "--resume") == 2  # other categories would be another run


def test_faults_of_our_own(folder, capsys, monkeypatch):
    monkeypatch.setattr(CliDetector, "describe", lambda self: 1 / 0)
    assert run("predict", "in", "-o", "run") == 1
    err = capsys.readouterr().err
    assert "error: unexpected ZeroDivisionError: division by zero (this is a fault of headclip" in err
    assert "Traceback" not in err
    monkeypatch.setenv("HEADCLIP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["predict", "in", "-o", "run"])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG])
def test_places_that_cannot_be_used_are_no_faults_of_our_own(folder, capsys, monkeypatch, number):
    def fail(*arguments):
        raise OSError(number, os.strerror(number), "in/there")

    monkeypatch.setattr(CliDetector, "describe", fail)
    assert run("predict", "in", "--out", "run") == 2
    err = capsys.readouterr().err
    assert f"error: cannot use in/there: {os.strerror(number)}; " in err
    assert "fault of headclip" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "in", "--out", "x" * 300),
        ("predict", "in", "--out", "x" * 300 + "/run"),
        ("predict", "x" * 300 + ".png", "--out", "run"),
        ("evaluate", "--data", "x" * 300, "--out", "run"),
        ("evaluate", "--data", "in", "--out", "x" * 300),
        ("data", "check", "folder=" + "x" * 300),
        ("calibrate", "x" * 300, "--out", "c.json"),
        ("rejudge", "x" * 300, "--threshold", "0.5"),
        ("compare", "in", "--method", "clip", "--out", "x" * 300 + ".png"),
    ],
)
def test_names_that_are_too_long_are_refused(folder, capsys, arguments):
    assert run(*arguments) == 2
    assert "fault of headclip" not in capsys.readouterr().err


def test_version_and_help(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"headclip {__version__}\n"
    assert run("--help") == 0
    assert {"predict", "doctor"} <= set(capsys.readouterr().out.split())
    assert run() == 2
    assert "Usage: headclip" in "".join(capsys.readouterr())


def test_doctor_states_the_facts(capsys, monkeypatch, tmp_path):
    import torch

    (tmp_path / "models--openai--clip-vit-base-patch32").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    assert run("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    facts = {line[:19].strip(): line[19:].strip() for line in lines}
    assert facts["headclip"] == __version__
    assert facts["torch"].startswith(torch.__version__)
    assert facts["auto device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert facts["auto precision"].startswith(("fp32", "bf16"))
    assert "openai/clip-vit-base-patch32" in facts["Hugging Face cache"]
    assert facts["embedded model"].startswith(("there", "missing"))
    assert facts["hub"].startswith(("installed", "not installed"))


def test_help_imports_nothing_heavy():
    """What makes `headclip --help` answer at once, measured by what it loads instead of by the clock."""
    code = (
        "import sys, json\n"
        "from headclip.cli.app import main\n"
        "try:\n    main(['predict', '--help'])\n"
        "except SystemExit:\n    print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    loaded = set(json.loads(result.stdout.splitlines()[-1]))
    assert "headclip.cli.predict" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "pyarrow", "PIL", "jinja2", "transformers"}


def test_sigterm_interrupts_a_command_and_is_left_as_it_was(monkeypatch):
    during = []
    monkeypatch.setattr("headclip.cli.app.app", lambda **_: during.append(signal.getsignal(signal.SIGTERM)))
    for before in (signal.SIG_DFL, signal.SIG_IGN):
        kept = signal.signal(signal.SIGTERM, before)
        try:
            main(["doctor"])
            assert signal.getsignal(signal.SIGTERM) == before
        finally:
            signal.signal(signal.SIGTERM, kept)
    assert during == [signal.default_int_handler] * 2
