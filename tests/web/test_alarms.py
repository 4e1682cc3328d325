"""The command that runs for every alarm of a watched folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time

import pytest
from PIL import Image

from headclip.errors import InputError
from headclip.judgement.choosing import Judging
from headclip.runs.run import Row
from headclip.web.alarms import Alarms, is_alarm
from headclip.web.watch import Watch
from inference.fake_detector import FakeDetector
from web.conftest import until

TELL = """
import json, os, sys
said = {name: value for name, value in os.environ.items() if name.startswith("HEADCLIP_")}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([said, sys.argv[2:], json.loads(sys.stdin.readline())]) + "\\n")
"""


@pytest.fixture
def told(tmp_path):
    """A command that writes down what it is told, and what has been written so far."""
    script, file = tmp_path / "tell.py", tmp_path / "told.jsonl"
    script.write_text(TELL)
    command = shlex.join([sys.executable, str(script), str(file)])
    return command, lambda: [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def shell(line):
    return f"sh -c {shlex.quote(line)}"


def judged(folder, name, verdict="defect"):
    row = Row(name, "ok", score=0.75, height=4, width=4, map=f"maps/{name}", verdict=verdict, regions=2)
    return folder / name, row


def test_a_command_is_told_what_was_found(tmp_path, told):
    command, read = told
    alarms = Alarms(command, tmp_path / "run")
    alarms.raised(*judged(tmp_path, "a.png"))
    alarms.close()
    [(variables, _, line)] = read()
    assert variables == {
        "HEADCLIP_IMAGE": str(tmp_path / "a.png"),
        "HEADCLIP_NAME": "a.png",
        "HEADCLIP_RUN": str(tmp_path / "run"),
        "HEADCLIP_SCORE": "0.75",
        "HEADCLIP_VERDICT": "defect",
        "HEADCLIP_REGIONS": "2",
    }
    assert line["image"] == str(tmp_path / "a.png")
    assert line["map"] == str(tmp_path / "run" / "maps" / "a.png")
    assert (line["score"], line["verdict"], line["regions"]) == (0.75, "defect", 2)


def test_a_name_is_an_argument_and_never_a_command(tmp_path, told, monkeypatch):
    command, read = told
    names = ["$(touch owned).png", "`touch owned`.png", "a; touch owned.png", "\"quoted\" 'name'.png", "two\nlines.png"]
    names.append("{score} {run}.png")
    monkeypatch.chdir(tmp_path)
    alarms = Alarms(f"{command} {{name}} at {{score}}", tmp_path)
    for name in names:
        alarms.raised(*judged(tmp_path, name))
    alarms.close()
    assert [line["name"] for *_, line in read()] == names
    assert [arguments for _, arguments, _ in read()] == [[name, "at", "0.75"] for name in names]
    assert not (tmp_path / "owned").exists()


def test_a_command_that_fails_is_a_line_in_the_log(tmp_path, told, caplog):
    command, read = told
    alarms = Alarms(shell(f'test "$HEADCLIP_NAME" = b.png && {command}'), tmp_path)
    for name in ("a.png", "b.png"):
        alarms.raised(*judged(tmp_path, name))
    alarms.close()
    assert [line["name"] for *_, line in read()] == ["b.png"]
    assert "the command for a.png ended with status 1" in caplog.text
    assert "b.png" not in caplog.text


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path, told, caplog):
    command, read = told
    alarms = Alarms(
        shell(f'test "$HEADCLIP_NAME" = b.png && {command} || (sleep 600; echo never)'), tmp_path, timeout=2
    )
    for name in ("a.png", "b.png"):
        alarms.raised(*judged(tmp_path, name))
    alarms.close()
    assert "a.png took longer than 2 s and was ended" in caplog.text
    assert [line["name"] for *_, line in read()] == ["b.png"]


def test_too_many_waiting_are_left_out(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("headclip.web.alarms.MOST_WAITING", 2)
    alarms = Alarms("sleep 600", tmp_path, timeout=1)
    for number in range(5):
        alarms.raised(*judged(tmp_path, f"{number}.png"))
    assert "left out: 4.png" in caplog.text
    started = time.monotonic()
    alarms.close(grace=0.2)
    assert time.monotonic() - started < 600  # a command is not waited for
    assert re.search(r"alarms that were not told of: [12]$", caplog.text, re.MULTILINE)
    caplog.clear()
    alarms._thread.join(30)
    assert not alarms._thread.is_alive()
    assert caplog.text.count("was ended") <= 1  # the one that ran; what waited is left out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (" ", "--on-alarm is empty"),
        ("cp 'x", "No closing quotation"),
        ("no-such-program {image}", "there is no program no-such-program"),
        ('cp "$HEADCLIP_IMAGE" x', r"write \{image\}, or sh -c"),
    ],
)
def test_what_cannot_be_meant_is_said_before_anything_is_judged(tmp_path, command, words):
    with pytest.raises(InputError, match=words):
        Watch(tmp_path, tmp_path / "run", max_pixels=10**6, on_alarm=command)


@pytest.mark.parametrize(("verdict", "expected"), [("ok", False), ("review", True), ("defect", True), (None, False)])
def test_what_is_an_alarm(tmp_path, verdict, expected):
    assert is_alarm(judged(tmp_path, "a.png", verdict)[1]) is expected


def test_a_watched_folder_tells_of_new_alarms_once(tmp_path, told):
    command, read = told
    folder, out = tmp_path / "line", tmp_path / "run"
    folder.mkdir()
    detector, judging = FakeDetector(), Judging(threshold=0.5)

    def look(names):
        for name, value in names.items():
            Image.new("RGB", (20, 20), (value, value, value)).save(folder / name)
        watch = Watch(folder, out, max_pixels=10**6, interval=0.02, on_alarm=command)
        watch.start(detector, judging)
        until(lambda: watch.state.judged == len(list(folder.iterdir())))
        watch.stop()

    look({"dark.png": 10, "bright.png": 250})
    assert [line["name"] for *_, line in read()] == ["bright.png"]
    look({"white.png": 255})
    assert [line["name"] for *_, line in read()] == ["bright.png", "white.png"]


def test_there_has_to_be_a_threshold(tmp_path, told):
    (tmp_path / "line").mkdir()
    watch = Watch(tmp_path / "line", tmp_path / "run", max_pixels=10**6, on_alarm=told[0])
    with pytest.raises(InputError, match="--on-alarm needs a threshold"):
        watch.open(FakeDetector())
