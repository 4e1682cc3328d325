"""`headclip serve`: what it refuses before anything is loaded."""

from __future__ import annotations

import socket

import pytest

from headclip.cli.app import main
from headclip.cli.serve import _address, _greeting
from inference.test_peers import write_alike


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["serve", *map(str, arguments)])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_nothing_to_serve(capsys):
    assert "nothing to serve" in fails(capsys)


def test_options_that_belong_together(capsys, tmp_path):
    assert "belong together" in fails(capsys, "--watch", tmp_path)
    assert "add --watch" in fails(capsys, "--live", "--on-alarm", "true")
    assert "--on-alarm is empty" in fails(capsys, "--watch", tmp_path, "--out", tmp_path, "--on-alarm", " ")
    assert "add --live" in fails(capsys, "--keep", tmp_path, tmp_path)
    assert "add it" in fails(capsys, "--live", "--false-alarms", "0.1")
    assert "at least 8" in fails(capsys, "--live", "--token", "short")
    assert "at least 8" in fails(capsys, "--live", "--token", "with a space in it")


def test_no_run(capsys, tmp_path):
    assert "holds no run" in fails(capsys, tmp_path, "--port", 0)


def test_a_taken_port(capsys, run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "choose another --port" in fails(capsys, run, "--port", taken.getsockname()[1])


@pytest.mark.parametrize("host", ["a" * 80, "192.0.2.1"])
def test_an_address_that_cannot_be_listened_on(capsys, run, host):
    assert "choose another --port or --host" in fails(capsys, run, "--host", host, "--port", 0)


def test_a_missing_extra_is_named(capsys, run, monkeypatch):
    monkeypatch.setattr("headclip.cli.serve.find_spec", lambda name: None if name == "uvicorn" else object())
    assert "headclip serve needs uvicorn; pip install 'headclip[serve]'" in fails(capsys, run)


def test_a_run_that_could_not_be_left_whole_shows_in_the_status(run, monkeypatch):
    def stop(app, listening, **options):
        listening.close()
        app.state.left_open = True

    monkeypatch.setattr("headclip.web.server.run_server", stop)
    with pytest.raises(SystemExit) as end:
        main(["serve", str(run), "--port", "0"])
    assert end.value.code == 1


def test_normal_images_draw_the_line_for_what_comes(tmp_path, monkeypatch, capsys):
    good = write_alike(tmp_path / "good", 5, spot=())

    def stop(app, listening, *, ready, **options):
        listening.close()
        app.state.left_open = False
        ready()

    monkeypatch.setattr("headclip.web.server.run_server", stop)
    with pytest.raises(SystemExit) as end:
        main(["serve", "--live", "--reference", str(good), "--false-alarms", "0.2", "--port", "0"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "judged so: About 20 % of normal images raise an alarm, on average; calibrated on 5 reference images" in said


def test_addresses_to_open():
    assert _address("127.0.0.1", 8700) == "http://127.0.0.1:8700"
    assert _address("::1", 8700) == "http://[::1]:8700"
    assert _address("0.0.0.0", 8700) == f"http://{socket.gethostname()}:8700"


def test_an_open_door_is_pointed_out():
    assert any("anybody" in line for line in _greeting("0.0.0.0", 1, None, True))
    assert not any("anybody" in line for line in _greeting("0.0.0.0", 1, "secret-token", True))
    assert not any("anybody" in line for line in _greeting("127.0.0.1", 1, None, True))
