"""What the pages fetch of a run, and that nothing outside of it can be fetched."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from headclip.data.manifest import read_manifest
from headclip.data.reading import Reading
from headclip.errors import InputError
from headclip.judgement.choosing import Judging
from headclip.judgement.verdicts import Criteria
from headclip.runs.files import RunFolderError
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Run
from headclip.web.marks import MARKS, Marks
from headclip.web.runs import RunView, image_id, open_runs


@pytest.fixture
def site(client, run):
    return client(runs=(run,))


def columns(site, key="first-run"):
    return site.get(f"/runs/{key}/images.json").json()


def id_of(name):
    return image_id(name)


def test_rows_as_columns(site, run):
    data = columns(site)
    rows = Run.open(run).rows
    assert data["names"] == [row.path for row in rows]
    assert data["scores"] == [None if row.score is None else pytest.approx(row.score, abs=1e-6) for row in rows]
    assert data["ids"] == [id_of(row.path) for row in rows]
    assert set(data["reasons"]) == {str(index) for index, row in enumerate(rows) if row.status == "failed"}
    assert data["rule"]["origin"] == "guess"
    assert "promises nothing" in data["rule"]["words"]


def test_the_page_finds_the_verdicts_of_the_table(site, run):
    """A conformal threshold is some image's own score: rounded, that image would raise an alarm, or another none."""
    for row in Run.open(run).ok:
        rejudge(run, Criteria.manual(row.score, 0.4))
        data = columns(site)
        alarms = {name for name, score in zip(data["names"], data["scores"], strict=True)
                  if score is not None and score > data["rule"]["high"]}  # fmt: skip
        assert alarms == {row.path for row in Run.open(run).ok if row.verdict == "defect"}


def test_rows_are_sent_once(site):
    first = site.get("/runs/first-run/images.json")
    again = site.get("/runs/first-run/images.json", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_rejudged_run_shows_its_thresholds_at_once(site, run):
    before = columns(site)
    rejudge(run, Criteria.manual(0.31, 0.4))
    after = columns(site)
    assert after["revision"] != before["revision"]
    assert (after["rule"]["threshold"], after["rule"]["pixel"], after["rule"]["origin"]) == (0.31, 0.4, "run")
    assert after["rule"]["source"] == "manual"


def test_a_run_that_could_not_be_read_once_is_read_again(run, monkeypatch):
    """A table is replaced, or a share goes away, at just that moment; the page must not stay at what was before."""
    view = RunView(run, "x")
    rejudge(run, Criteria.manual(0.31, 0.4))
    with monkeypatch.context() as broken:
        broken.setattr(Run, "open", lambda folder: (_ for _ in ()).throw(RunFolderError("gone for a moment")))
        with pytest.raises(RunFolderError, match="for a moment"):
            _ = view.state
    assert view.rule().criteria.threshold == 0.31


def test_thresholds_of_the_user_go_before_the_runs(client, run):
    rejudge(run, Criteria.manual(0.31, 0.4))
    data = columns(client(runs=(run,), judging=Judging(threshold=0.2)))
    assert (data["rule"]["threshold"], data["rule"]["origin"]) == (0.2, "given")


def test_known_labels_are_sent(site, run):
    rejudge(run, Criteria.manual(0.3), labels={"left/part 1.png": 1})
    data = columns(site)
    assert {data["names"][int(index)]: label for index, label in data["labels"].items()} == {"left/part 1.png": 1}


def test_pictures(site, run):
    image = id_of("left/part 3.png")
    thumb = site.get(f"/runs/first-run/thumb/{image}")
    assert thumb.headers["content-type"] == "image/jpeg"
    assert "immutable" in thumb.headers["cache-control"]
    assert Image.open(io.BytesIO(thumb.content)).size == (40, 27)
    full = site.get(f"/runs/first-run/picture/{image}")
    assert Image.open(io.BytesIO(full.content)).size == (40, 27)
    heat = Image.open(io.BytesIO(site.get(f"/runs/first-run/heat/{image}").content))
    assert heat.mode == "L"


def test_maps_arrive_with_all_their_bits(site, run):
    opened = Run.open(run)
    row = next(row for row in opened.ok if row.path == "left/part 3.png")
    packed = np.asarray(Image.open(io.BytesIO(site.get(f"/runs/first-run/map/{id_of(row.path)}").content)), np.uint16)
    levels = (packed[..., 0] << 8) | packed[..., 1]
    assert np.array_equal(levels, np.rint(opened.load_map(row) * 65535).astype(np.uint16))


def test_the_preview_stands_in_for_a_picture_that_is_gone(site, run, tmp_path):
    shutil.rmtree(tmp_path / "in")
    assert site.get(f"/runs/first-run/picture/{id_of('left/part 3.png')}").status_code == 200


def test_regions_are_the_judgements(site, run):
    opened = Run.open(run)
    row = max(opened.ok, key=lambda row: row.score)
    answer = site.get(f"/runs/first-run/regions/{id_of(row.path)}?pixel=0.5").json()
    found = Criteria.manual(0.5, 0.5).regions(0.0, opened.load_map(row))
    assert answer["count"] == len(found) > 0
    assert answer["regions"][0]["area"] == found[0].area
    assert site.get(f"/runs/first-run/regions/{id_of(row.path)}?pixel=2").status_code == 422


def test_what_is_not_there_is_404(site):
    failed, unknown = id_of("bad/text.png"), "0" * 16
    for kind in ("thumb", "heat", "map", "picture", "regions"):
        for image in (failed, unknown):
            assert site.get(f"/runs/first-run/{kind}/{image}?pixel=0.5").status_code == 404
    for path in ("/runs/none", "/runs/none/images.json", "/compare/first-run/first-run", "/static/../app.py"):
        assert site.get(path).status_code == 404


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%5C..%5Cx", "a/b", "%00", "~"]
)
def test_addresses_hold_no_paths(site, name):
    for kind in ("thumb", "picture", "map"):
        assert site.get(f"/runs/first-run/{kind}/{name}").status_code in (404, 422)
    assert site.get(f"/runs/{name}/images.json").status_code in (404, 422)
    assert site.get(f"/static/{name}").status_code == 404


def test_a_run_folder_that_points_elsewhere_is_not_followed(client, run, tmp_path):
    """A run folder may come from somebody else; its table must not open files of this machine."""
    secret = tmp_path / "secret.png"
    Image.new("RGB", (30, 30)).save(secret)
    outside = ["../secret.png", str(secret)]
    rows = [
        json.dumps(
            {
                "row": {
                    "path": name,
                    "status": "ok",
                    "score": 0.5,
                    "height": 30,
                    "width": 30,
                    "map": f"../{secret.name}",
                },
                "size": 1,
                "mtime_ns": 1,
            }
        )
        for name in outside
    ]
    (run / "progress.jsonl").write_text("\n".join(rows) + "\n")
    facts = json.loads((run / "run.json").read_text()) | {"status": "interrupted"}
    (run / "run.json").write_text(json.dumps(facts))
    site = client(runs=(run,))
    assert columns(site)["names"] == []  # such rows are not those of a run
    for name in outside:
        for kind in ("thumb", "picture", "map", "heat"):
            answer = site.get(f"/runs/first-run/{kind}/{id_of(name)}")
            assert answer.status_code == 404, (name, kind)
            assert str(tmp_path) not in answer.text


def test_a_link_out_of_the_run_is_not_followed(site, run, tmp_path):
    target = run / "previews" / "left" / "part 3.png.jpg"
    target.unlink()
    Image.new("RGB", (30, 30)).save(tmp_path / "other.jpg")
    target.symlink_to(tmp_path / "other.jpg")
    assert site.get(f"/runs/first-run/thumb/{id_of('left/part 3.png')}").status_code == 404


def test_errors_say_no_path(site, run, tmp_path):
    shutil.rmtree(run / "previews")
    shutil.rmtree(run / "maps")
    for kind in ("thumb", "map", "regions"):
        answer = site.get(f"/runs/first-run/{kind}/{id_of('left/part 3.png')}?pixel=0.5")
        assert answer.status_code == 404
        assert str(tmp_path) not in answer.text


def test_marks_are_kept_beside_the_run_and_exported_as_labels(client, site, run, tmp_path):
    names = ["left/part 1.png", "right/part 2.png", "left/part 3.png"]
    for name, mark in zip(names, ("false alarm", "miss", "miss"), strict=True):
        body = {"mark": mark, "threshold": 0.25}
        assert site.put(f"/runs/first-run/marks/{id_of(name)}", json=body).json() == {"mark": mark}
    site.put(f"/runs/first-run/marks/{id_of(names[2])}", json={"mark": None})
    assert (run / MARKS).is_file()
    again = client(runs=(run,))
    assert again.get("/runs/first-run/marks.json").json() == {id_of(names[0]): "false alarm", id_of(names[1]): "miss"}
    answer = again.get("/runs/first-run/labels.csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["image"], row["label"], row["threshold"]) for row in rows] == [
        (names[0], "0", "0.250000"),
        (names[1], "1", "0.250000"),
    ]
    file = tmp_path / "labels.csv"
    file.write_text(answer.text)
    reading = Reading(tmp_path)
    read_manifest(reading, file, base=tmp_path / "in")
    assert sorted((record.path.name, record.label) for record in reading.records) == [
        ("part 1.png", 0),
        ("part 2.png", 1),
    ]


def test_marks_that_make_no_sense(site):
    image = id_of("left/part 1.png")
    assert site.put(f"/runs/first-run/marks/{image}", json={"mark": "ugly"}).status_code == 422
    assert site.put(f"/runs/first-run/marks/{image}", content=b"{").status_code == 422
    assert site.put(f"/runs/first-run/marks/{'0' * 16}", json={"mark": "miss"}).status_code == 404


@pytest.mark.parametrize("threshold", [-5e-324, 1.0000000000000002, 1.5, 0.516767973123456])
def test_marks_are_kept_at_any_threshold_in_force(site, run, threshold):
    """A calibration may put it just below the lowest score; a run may have been judged by anything, once."""
    image = "left/part 1.png"
    answer = site.put(f"/runs/first-run/marks/{id_of(image)}", json={"mark": "miss", "threshold": threshold})
    assert answer.status_code == 200
    assert Marks(run).all()[image].threshold == threshold
    assert site.get("/runs/first-run/labels.csv").status_code == 200
    for body in (b'{"mark": "miss", "threshold": NaN}', b'{"mark": "miss", "threshold": 1e999}'):
        assert site.put(f"/runs/first-run/marks/{id_of(image)}", content=body).status_code == 422


def test_regions_at_a_calibrated_threshold_below_every_value(site, run):
    """As `optimal_pixels` gives where all pixels of the images with a mask are anomalous: half a level below 0."""
    row = Run.open(run).ok[0]
    answer = site.get(f"/runs/first-run/regions/{id_of(row.path)}?pixel=-7.6e-06")
    assert answer.status_code == 200
    assert answer.json()["regions"][0]["area"] == row.height * row.width


def test_a_damaged_file_of_marks_is_an_error_with_words(site, run):
    (run / MARKS).write_bytes(b"this is not a database, whatever its name says" * 100)
    answer = site.get("/runs/first-run/marks.json")
    assert answer.status_code == 409
    assert "marks cannot be kept" in answer.json()["detail"]


def test_pages(client, site, run):
    page = site.get("/")
    assert page.url.path == "/runs/first-run"
    assert "<h1>first run</h1>" in page.text
    missing = site.get("/runs/none", headers={"accept": "text/html"})
    assert (missing.status_code, "<h1>404</h1>" in missing.text) == (404, True)
    copy = run.with_name("second <b>run")
    shutil.copytree(run, copy)
    both = client(runs=(run, copy))
    home = both.get("/").text
    assert "second &lt;b&gt;run" in home
    assert "second <b>run" not in home
    assert both.get("/compare/first-run/second-b-run").status_code == 200
    assert both.get("/api").status_code == 200


def test_runs_have_names_of_their_own(run):
    other = run.parent / "deeper" / "First Run"
    shutil.copytree(run, other)
    assert list(open_runs([run, other])) == ["first-run", "first-run-2"]
    with pytest.raises(InputError, match="twice"):
        open_runs([run, run])


def test_a_run_that_goes_on_is_read_again(run):
    view = RunView(run, "x")
    before = view.state
    assert view.state is before
    facts = json.loads((run / "run.json").read_text()) | {"status": "running"}
    (run / "run.json").write_text(json.dumps(facts))
    lines = (run / "progress.jsonl").read_bytes().splitlines(keepends=True)
    (run / "progress.jsonl").write_bytes(b"".join(lines[:5]))
    assert len(view.state.run.rows) == 5
    assert not view.state.run.finished
