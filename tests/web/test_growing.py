"""Runs that grow while the server runs: a watched folder, and images dropped on the page."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

import headclip.runs.writer
from data.volume_files import write_tiff
from headclip.data.discover import find_images
from headclip.errors import InputError
from headclip.inference.predict import predict_run
from headclip.inference.volumes_inputs import open_inputs
from headclip.judgement.choosing import Judging
from headclip.runs.files import RunFolderError
from headclip.runs.run import Run
from headclip.web.app import AppOptions, create_app
from headclip.web.bodies import Upload
from headclip.web.live import LiveRun, free_name
from headclip.web.retries import Retries
from headclip.web.runs import image_id
from headclip.web.trouble import Trouble
from headclip.web.watch import Watch
from inference.fake_detector import FakeDetector
from web.conftest import encoded, until


def watch_of(folder, out):
    return Watch(folder, out, max_pixels=10**6, interval=0.02)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "line").mkdir()
    return tmp_path / "line"


def test_files_are_judged_once_they_are_complete(folder, tmp_path):
    watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
    with watch.open(detector) as writer:
        content = encoded()
        (folder / "a.png").write_bytes(content[:100])  # still being written
        assert watch.look(detector, writer) == 0
        (folder / "a.png").write_bytes(content)
        assert watch.look(detector, writer) == 0  # it has changed since the last look
        assert watch.look(detector, writer) == 1
        assert watch.look(detector, writer) == 0
        (folder / "broken.png").write_text("no image")
        (folder / "notes.txt").write_text("not looked at")
        watch.look(detector, writer)
        watch.look(detector, writer)
    run = Run.open(tmp_path / "run")
    assert [(row.path, row.status) for row in run.rows] == [("a.png", "ok"), ("broken.png", "failed")]
    assert run.load_map(run.rows[0]).shape == (40, 56)
    assert (tmp_path / "run" / "results.csv").read_text().count("\n") == 3


def test_a_stack_is_not_judged_by_its_first_page(folder, tmp_path):
    write_tiff(folder / "stack.tif", [np.full((20, 20), value, np.uint8) for value in (10, 200)])
    write_tiff(folder / "lone.tif", [np.full((20, 20), 10, np.uint8)])
    watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
    with watch.open(detector) as writer:
        watch.look(detector, writer)
        watch.look(detector, writer)
    rows = {row.path: row for row in Run.open(tmp_path / "run").rows}
    assert {name: row.status for name, row in rows.items()} == {"lone.tif": "ok", "stack.tif": "failed"}
    assert "a TIFF of 2 pages" in rows["stack.tif"].reason
    predict_run(FakeDetector(), open_inputs([folder], tmp_path / "run", resume=True), tmp_path / "run", resume=True)
    names = [row.path for row in Run.open(tmp_path / "run").rows]
    assert names == ["lone.tif", "stack.tif/page-0001", "stack.tif/page-0002"]


def test_a_long_table_is_not_written_after_every_image(folder, tmp_path, monkeypatch):
    """Writing a hundred thousand rows for each image takes longer than judging it."""
    monkeypatch.setattr("headclip.runs.writer.LONG_TABLE", -1.0)
    monkeypatch.setattr("headclip.runs.writer.TABLE_REST", 1e12)
    table, watch, detector = tmp_path / "run" / "results.csv", watch_of(folder, tmp_path / "run"), FakeDetector()
    with watch.open(detector) as writer:
        for name in ("a.png", "b.png", "c.png"):
            (folder / name).write_bytes(encoded(20, 20))
            watch.look(detector, writer)
            watch.look(detector, writer)
        assert len(writer.entries) == 3
        assert table.read_text().count("\n") == 2  # its head and the first image
        assert writer.table_is_stale
    assert table.read_text().count("\n") == 4


def test_a_file_that_changes_is_judged_again(folder, tmp_path):
    watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
    (folder / "a.png").write_bytes(encoded(20, 20))
    with watch.open(detector) as writer:
        watch.look(detector, writer)
        watch.look(detector, writer)
        (folder / "a.png").write_bytes(encoded(30, 30))
        os.utime(folder / "a.png", (1, 1))
        watch.look(detector, writer)
        assert watch.look(detector, writer) == 1
        assert writer.entries["a.png"].row.height == 30


def test_what_could_not_be_read_once_is_tried_again(folder, tmp_path, monkeypatch):
    """Its size and time are the same when it can be read at last, so that nothing but trying tells."""
    (folder / "a.png").write_bytes(encoded())
    (folder / "broken.png").write_text("no image")
    now, shut, opened = [0.0], [True], Path.open
    monkeypatch.setattr("headclip.web.watch.Retries", lambda: Retries(lambda: now[0]))

    def open_file(path, *args, **more):
        if path.name == "a.png" and path.parent == folder and shut[0]:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **more)

    monkeypatch.setattr("pathlib.Path.open", open_file)
    watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
    journal = tmp_path / "run" / "progress.jsonl"
    tries = []
    with watch.open(detector) as writer:
        watch.look(detector, writer)
        for second in range(40):
            now[0] = float(second)
            tries += [second] * watch.look(detector, writer)
        assert writer.entries["a.png"].row.reason == "no permission to read the file"
    assert tries == [0, 0, 2, 6, 14, 30]  # the broken one is not among them after the first
    assert journal.read_bytes().count(b"\n") == 2
    for shut[0] in (True, False):
        watch = watch_of(folder, tmp_path / "run")
        with watch.open(detector) as writer:
            assert [watch.look(detector, writer) for _ in range(3)] == [0, 1, 0]
    assert {row.path: row.status for row in Run.open(tmp_path / "run").rows} == {"a.png": "ok", "broken.png": "failed"}


def test_after_a_restart_nothing_is_judged_twice_and_predict_can_finish_the_run(folder, tmp_path):
    (folder / "a.png").write_bytes(encoded())
    for judged in ([1], []):
        watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
        with watch.open(detector) as writer:
            watch.look(detector, writer)
            watch.look(detector, writer)
        assert detector.batches == judged
    summary = predict_run(FakeDetector(), [folder], tmp_path / "run", resume=True)
    assert (summary.judged, summary.skipped, summary.report.is_file()) == (0, 1, True)


@pytest.mark.parametrize("judging", [None, Judging(threshold=0.1, pixel_threshold=0.1)])
def test_images_whose_maps_are_damaged_are_judged_again(folder, tmp_path, judging):
    names = [f"{number}.png" for number in range(4)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(encoded(seed=number))
    watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
    with watch.open(detector) as writer:
        watch.look(detector, writer)
        assert watch.look(detector, writer) == 4
    (tmp_path / "run/maps/0.png.png").write_bytes(b"")
    (tmp_path / "run/maps/1.png.png").unlink()
    (tmp_path / "run/previews/2.png.jpg").write_bytes(b"\0" * 900)
    (folder / "1.png").unlink()
    watch = watch_of(folder, tmp_path / "run")
    with watch.open(detector, judging) as writer:
        watch.check_maps(writer, 60)
        assert [watch.look(detector, writer) for _ in range(3)] == [0, 2, 0]
    run = Run.open(tmp_path / "run")
    assert {row.path: row.status for row in run.rows} == dict(zip(names, ["ok", "failed", "ok", "ok"], strict=True))
    assert [row.reason for row in run.failed] == ["its map or preview in the run folder is missing or damaged"]
    assert [run.load_map(row).shape for row in run.ok] == [(40, 56)] * 3


def test_maps_are_checked_while_the_server_watches(client, folder, tmp_path):
    (folder / "a.png").write_bytes(encoded())
    with (watch := watch_of(folder, tmp_path / "run")).open(FakeDetector()) as writer:
        watch.look(FakeDetector(), writer)
        watch.look(FakeDetector(), writer)
    (tmp_path / "run/maps/a.png.png").write_bytes(b"")
    client(detector=FakeDetector(), watch=watch_of(folder, tmp_path / "run"))
    until(lambda: (tmp_path / "run/maps/a.png.png").stat().st_size > 0)


def test_a_subfolder_that_cannot_be_listed_is_passed_over_and_told_once(folder, tmp_path, monkeypatch, caplog):
    (folder / "locked").mkdir()
    (folder / "a.png").write_bytes(encoded())
    scandir = os.scandir

    def listed(place="."):
        if place == folder / "locked":
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    monkeypatch.setattr(os, "scandir", listed)
    watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
    with watch.open(detector) as writer:
        assert [watch.look(detector, writer) for _ in range(3)] == [0, 1, 0]
    assert [record.message for record in caplog.records] == [
        f"watching {folder}: passed over, for they cannot be looked into: {folder}/locked (Permission denied)"
    ]


def test_a_folder_that_takes_long_to_list_is_left_alone_longer(folder, tmp_path, monkeypatch):
    (folder / "a.png").write_bytes(encoded())
    watch, detector, took = watch_of(folder, tmp_path / "run"), FakeDetector(), 0.0

    def slow(*args, **options):
        time.sleep(took)
        return find_images(*args, **options)

    monkeypatch.setattr("headclip.web.watch.find_images", slow)
    with watch.open(detector) as writer:
        assert watch._turn(detector, writer) < 0.1
        took = 0.2
        assert 1.0 <= watch._turn(detector, writer) < 5.0


def test_a_watched_run_keeps_its_thresholds(folder, tmp_path):
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(seed=number))
    asked = [Judging(threshold=0.0), None, Judging(threshold=1.0)]
    verdicts, thresholds = [], []
    for judging in asked:
        watch, detector = watch_of(folder, tmp_path / "run"), FakeDetector()
        with watch.open(detector, judging) as writer:
            watch.look(detector, writer)
            watch.look(detector, writer)
        run = Run.open(tmp_path / "run")
        verdicts.append({row.verdict for row in run.rows})
        thresholds.append(run.judgement["criteria"]["threshold"])
        assert run.judgement["verdicts"]["defect"] == (3 if verdicts[-1] == {"defect"} else 0)
    assert verdicts == [{"defect"}, {"defect"}, {"ok"}]
    assert thresholds == [0.0, 0.0, 1.0]
    summary = predict_run(FakeDetector(), [folder], tmp_path / "run", resume=True)
    assert [row.verdict for row in summary.rows] == ["ok"] * 3


def test_watching_in_the_server(client, folder, tmp_path):
    site = client(detector=FakeDetector(), watch=watch_of(folder, tmp_path / "results"), judging=Judging(threshold=0.2))
    (folder / "deep").mkdir()
    (folder / "deep" / "part.png").write_bytes(encoded())
    until(lambda: site.get("/runs/results/images.json").json()["names"] == ["deep/part.png"])
    data = site.get("/runs/results/images.json").json()
    assert data["rule"]["threshold"] == 0.2
    assert not data["finished"]
    table = tmp_path / "results" / "results.csv"  # written after the page has been told of the image
    until(lambda: table.is_file() and ",defect," in table.read_text())
    until(lambda: site.get("/v1/ready").json()["watch"] == {"judged": 1, "failed": 0, "error": None})
    assert site.get(f"/runs/results/thumb/{data['ids'][0]}").status_code == 200
    assert "Watching <b>line</b>" in site.get("/runs/results").text


def test_whatever_happens_once_a_folder_is_watched_on(client, folder, tmp_path, monkeypatch, caplog):
    watch = watch_of(folder, tmp_path / "results")
    look, trouble = watch.look, threading.Event()

    def stumbling(detector, writer):
        if not trouble.is_set():
            raise ValueError("nobody thought of this")
        return look(detector, writer)

    monkeypatch.setattr(watch, "look", stumbling)
    site = client(detector=FakeDetector(), watch=watch)
    until(lambda: site.get("/v1/ready").json()["watch"]["error"] == "ValueError; the server's log says more")
    answer = site.get("/v1/ready")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert "watched folder cannot be judged: ValueError" in answer.json()["reason"]
    assert "headclip_watch_error 1.0" in site.get("/metrics").text
    trouble.set()
    (folder / "part.png").write_bytes(encoded())
    until(lambda: site.get("/v1/ready").json()["watch"] == {"judged": 1, "failed": 0, "error": None})
    assert site.get("/v1/ready").status_code == 200
    text = site.get("/metrics").text
    assert 'headclip_watch_images{outcome="judged"} 1.0' in text
    assert 'headclip_watch_images{outcome="failed"} 0.0' in text
    assert "headclip_watch_error 0.0" in text
    assert float(re.search(r"^headclip_watch_idle_seconds (\S+)$", text, re.MULTILINE)[1]) < 20
    assert [record.message.rpartition("; ")[2] for record in caplog.records] == [
        "the server tries again by itself",
        f"watching {folder}: it goes on",
    ]


def test_the_same_trouble_is_said_and_tried_less_and_less_often():
    now = [0.0]
    trouble = Trouble(1.0, lambda: now[0])
    said, tried = [], []
    while now[0] < 1000:
        tried.append(now[0])
        said += [now[0]] if trouble.met("full") else []
        now[0] += trouble.pause
    assert tried[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert said == [0, 63, 183, 423, 903]
    assert trouble.met("another thing")
    assert trouble.over()
    assert not trouble.over()
    assert trouble.met("full")
    assert trouble.pause == 1.0


def test_a_run_that_cannot_be_left_whole_is_one_line_and_known_to_the_command(folder, tmp_path, monkeypatch, caplog):
    full, write, in_threads = [False], headclip.runs.writer.write_atomic, []

    def write_atomic(place, name, content, **more):
        if full[0]:
            raise RunFolderError(f"cannot write {place / name}: No space left on device; mend that")
        write(place, name, content, **more)

    monkeypatch.setattr("headclip.runs.writer.write_atomic", write_atomic)
    monkeypatch.setattr("threading.excepthook", in_threads.append)
    live = live_run()
    app = create_app(AppOptions(detector=FakeDetector(), watch=watch_of(folder, tmp_path / "run"), live=live))
    with TestClient(app):
        full[0] = True
    assert app.state.left_open
    assert in_threads == []
    assert [record.message for record in caplog.records] == [
        f"while stopping: cannot write {place}/results.csv: No space left on device; mend that; the same command goes "
        "on from what is on record"
        for place in (tmp_path / "run", live.folder)
    ]
    assert not live.folder.exists()


def test_mistakes_show_at_the_start(folder, tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        watch_of(tmp_path / "none", tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    with pytest.raises(RunFolderError, match="holds no run"):
        watch_of(folder, tmp_path / "full")
    (tmp_path / "a.png").write_bytes(encoded())
    predict_run(FakeDetector(), [tmp_path / "a.png"], tmp_path / "run")
    with pytest.raises(InputError, match="is a run of headclip"):
        watch_of(tmp_path / "run", tmp_path / "other")


def live_run(keep=None):
    return LiveRun(keep, max_pixels=10**6, patience=5.0)


def test_dropped_images_become_a_run(client):
    live = live_run()
    site = client(detector=FakeDetector(), live=live)
    files = [
        ("images", ("../a.png", encoded(seed=1))),
        ("images", ("a.png", encoded(seed=2))),
        ("images", ("b.gif", b"GIF89a")),
    ]
    results = site.post("/live/images", files=files).json()["results"]
    assert [(item["name"], item["status"]) for item in results] == [
        ("a.png", "ok"),
        ("a (2).png", "ok"),
        ("b.gif.png", "failed"),
    ]
    data = site.get("/runs/live/images.json").json()
    assert sorted(data["names"]) == ["a (2).png", "a.png", "b.gif.png"]
    for image in (image_id("a.png"), image_id("a (2).png")):
        for kind in ("thumb", "picture", "map"):
            assert site.get(f"/runs/live/{kind}/{image}").status_code == 200
    assert site.put(f"/runs/live/marks/{image_id('a.png')}", json={"mark": "miss"}).status_code == 200
    place = live.folder.parent
    live.close()
    assert not place.exists()


@pytest.mark.parametrize("letter", ["𠀀", "é", "x"])
def test_long_names_in_any_script_are_cut(client, letter):
    site = client(detector=FakeDetector(), live=live_run())
    files = [("images", (letter * 80 + ".png", encoded(seed=seed))) for seed in range(2)]
    answer = site.post("/live/images", files=files)
    assert answer.status_code == 200
    assert [item["status"] for item in answer.json()["results"]] == ["ok", "ok"]
    for item in answer.json()["results"]:
        assert item["name"].startswith(letter * 50)
        assert site.get(f"/runs/live/map/{item['id']}").status_code == 200


def test_kept_images_are_there_after_a_restart(client, tmp_path):
    site = client(detector=FakeDetector(), live=live_run(tmp_path / "kept"))
    site.post("/live/images", files=[("images", ("a.png", encoded()))])
    site.__exit__(None, None, None)
    again = live_run(tmp_path / "kept")
    again.start(FakeDetector())
    again.judge([Upload("b.png", encoded())])
    again.close()
    assert [row.path for row in Run.open(tmp_path / "kept" / "live").rows] == ["a.png", "b.png"]
    assert (tmp_path / "kept" / "images" / "a.png").is_file()


def test_without_a_model_nothing_can_be_dropped(client, run):
    answer = client(runs=(run,)).post("/live/images", files=[("images", ("a.png", encoded()))])
    assert answer.status_code == 503


@pytest.mark.parametrize(
    "name",
    [
        "../../x.png",
        "/etc/passwd",
        "..",
        "",
        "a\0b.png",
        "CON\\x.png",
        ".hidden.png",
        "é" * 300,
        "<b>.png",
        "𠀀" * 80,
        "=cmd|'x'!A1.png",
        "@SUM(A1).png",
        "=-+.png",
    ],
)
def test_names_of_kept_files_are_plain(name):
    found = free_name(name, set())
    assert "/" not in found
    assert "\\" not in found
    assert not found.startswith((".", "=", "+", "-", "@"))
    assert len(found.encode()) < 255
    assert found.endswith(".png")
