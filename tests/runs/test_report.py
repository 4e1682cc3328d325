"""The page: complete, safe against file names, self-contained."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headclip.inference.predict import predict_run
from headclip.judgement import Criteria, find_regions
from headclip.judgement.choosing import Judging
from headclip.runs import report
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Row, Run
from inference.fake_detector import FakeDetector

EVIL = "</script><img src=x onerror=alert(1)>&amp;\"'{{7*7}}#?%.png".replace("/", "\u2215")


def whole_page(*arguments) -> str:
    return "".join(report.report_pieces(*arguments))


class Page(HTMLParser):
    """Tags with attributes, text of table cells, and the data of the script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._open: list[str] = []
        self._data = ""
        self.feed(text)
        self.data = json.loads(self._data)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append("data" if dict(attrs).get("id") == "data" else tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        self._open.append("")

    def handle_data(self, data):
        if self._open and self._open[-1] == "td":
            self.cells[-1] += data
        if self._open and self._open[-1] == "data":
            self._data += data


@pytest.fixture
def finished(pictures, bad_files, tmp_path) -> Run:
    Image.new("RGB", (30, 20), "red").save(pictures / EVIL)
    (pictures / ("<b>" + EVIL)).touch()
    predict_run(FakeDetector(), [pictures], tmp_path / "run", arguments={"backbone": "<i>x</i>"})
    return Run.open(tmp_path / "run")


def test_every_image_is_there_and_nothing_escapes(finished):
    text = finished.report.read_text()
    page = Page(text)
    names = {row.path for row in finished.rows}
    assert EVIL in names
    assert {image["n"] for image in page.data["images"]} == names
    assert names <= set(page.cells)
    reasons = {image["n"]: image["r"] for image in page.data["images"] if "r" in image}
    assert reasons == {row.path: row.reason for row in finished.failed}
    assert set(reasons.values()) <= set(page.cells)
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert [attributes["id"] for tag, attributes in page.tags if tag == "img"] == [
        "stage-image",
        "stage-overlay",
    ]
    assert "onerror=alert(1)>" not in text
    assert "<i>x</i>" not in text
    assert text.count("</script>") == 2


def test_the_page_needs_no_network_and_no_other_file(finished):
    text = finished.report.read_text()
    assert not re.search(r"(https?:)?//[a-z0-9]", re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", text))
    assert "default-src 'none'" in text
    page = Page(text)
    assert not any(tag in ("link", "iframe") for tag, _ in page.tags)
    assert not any(attributes.get("src") for _, attributes in page.tags)


def test_order_links_and_pictures(finished):
    images = [image for image in Page(finished.report.read_text()).data["images"] if "s" in image]
    assert [image["s"] for image in images] == sorted((image["s"] for image in images), reverse=True)
    by_name = {row.path: row for row in finished.ok}
    for image in images:
        row = by_name[image["n"]]
        assert (image["h"], image["w"]) == (row.height, row.width)
        for key in ("t", "m"):
            content = base64.b64decode(image[key].removeprefix("data:image/jpeg;base64,"))
            with Image.open(io.BytesIO(content)) as picture:
                assert picture.size == (row.width, row.height)
                assert (picture.mode == "L") == (key == "m")
    evil = next(image for image in images if image["n"] == EVIL)
    assert not set(evil["o"]) & set("<>&\"'#?{} ")


def test_no_score_lies_outside_the_range_of_the_page(finished):
    low, high = 0.2345674, 0.7654326  # the one rounds down, the other up
    parts = {"global_score": 0.5, "local_score": 0.5, "height": 9, "width": 9}
    rows = [Row(f"{score}.png", "ok", score=score, **parts) for score in (high, low)]
    page = Page(whole_page(rows, finished.facts, {}, finished.folder))
    scores = [image["s"] for image in page.data["images"]]
    assert [page.data["high"], page.data["low"]] == scores


def test_maps_are_on_the_scale_of_the_run(finished):
    scale = finished.facts["scale"]
    page = Page(finished.report.read_text())
    brightest = max(finished.ok, key=lambda row: row.score)
    image = next(image for image in page.data["images"] if image["n"] == brightest.path)
    with Image.open(io.BytesIO(base64.b64decode(image["m"].split(",")[1]))) as picture:
        grey = np.asarray(picture).mean() / 255
    values = finished.load_map(brightest)
    expected = np.clip((values - scale["low"]) / (scale["high"] - scale["low"]), 0, 1).mean()
    assert grey == pytest.approx(expected, abs=0.03)


def test_limits_of_what_is_embedded(finished, tmp_path, monkeypatch):
    rows = [Row(f"{i}.png", "ok", score=i / 10, height=9, width=9, global_score=0, local_score=0) for i in range(9)]
    monkeypatch.setattr(report, "MAX_THUMBNAILS", 4)
    assert report.thumbnail_names(rows) == {"8.png", "7.png", "6.png", "5.png"}
    thumbnails = {f"{i}.png": report.Thumbnail("data:a" * 10, "data:b" * 10) for i in (8, 7, 6, 5)}
    monkeypatch.setattr(report, "MAX_THUMBNAIL_BYTES", 250)
    facts = finished.facts
    data = Page(whole_page(rows, facts, thumbnails, tmp_path)).data
    assert [image["n"] for image in data["images"] if "t" in image] == ["8.png", "7.png"]
    assert all(image["o"].startswith("overlays/") for image in data["images"])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_pages_of_few_images(finished, tmp_path, count):
    rows = [
        Row(f"{i}.png", "ok", score=0.5, height=9, width=9, global_score=0.1, local_score=0.2) for i in range(count)
    ]
    page = Page(whole_page(rows, finished.facts, {}, tmp_path))
    assert len(page.data["images"]) == count


def test_links_reach_the_images(finished):
    root = Path(Page(finished.report.read_text()).data["root"])
    assert (finished.folder / root / finished.ok[0].path).samefile(finished.image_path(finished.ok[0]))


def test_histogram_counts_every_score():
    scores = np.random.default_rng(0).random(1000).tolist()
    bars = report.histogram(scores)
    assert sum(bar.count for bar in bars) == 1000
    assert max(bar.share for bar in bars) == 1.0
    for bar in bars[:-1]:
        assert bar.count == sum(bar.low <= score < bar.high for score in scores)


def test_verdicts_regions_and_labels_are_on_the_page(pictures, tmp_path):
    judging = Judging(threshold=0.2, pixel_threshold=0.5)
    predict_run(FakeDetector(), [pictures], tmp_path / "run", judging=judging)
    names = [row.path for row in Run.open(tmp_path / "run").ok]
    rejudge(tmp_path / "run", Criteria.manual(0.2, 0.5, low=0.1, high=0.3), labels={names[0]: 0, names[-1]: 1})
    run = Run.open(tmp_path / "run")
    page = Page(run.report.read_text())
    images = {image["n"]: image for image in page.data["images"]}
    assert {name: image["v"] for name, image in images.items()} == {row.path: row.verdict for row in run.ok}
    assert {row.verdict for row in run.ok} == {"ok", "review", "defect"}
    assert {name: image.get("k", 0) for name, image in images.items()} == {row.path: row.regions for row in run.ok}
    for path, regions in run.load_regions().items():
        outlines = [[[*map(float, ring)] for ring in rings] for rings in images[path]["c"]]
        assert [rings[0] for rings in outlines] == [[v for p in region.polygon for v in p] for region in regions]
    assert {name: image["y"] for name, image in images.items() if "y" in image} == {names[0]: 0, names[-1]: 1}
    marks = [attributes for _, attributes in page.tags if (attributes.get("class") or "").startswith("mark")]
    assert [mark["data-text"] for mark in marks] == ["review from 0.1000", "threshold 0.2000", "defect from 0.3000"]
    bars = [attributes["class"] for _, attributes in page.tags if (attributes.get("class") or "").startswith("bin")]
    assert {name.split()[1] for name in bars} == {"ok", "review", "defect"}
    options = {attributes.get("value") for tag, attributes in page.tags if tag == "option"}
    assert {"defect", "review", "alarm", "verdict-ok", "missed", "false"} <= options


def test_a_page_without_thresholds_has_no_verdicts(finished):
    page = Page(finished.report.read_text())
    assert not any("v" in image for image in page.data["images"])
    assert not {"defect", "review"} & {attributes.get("value") for tag, attributes in page.tags if tag == "option"}


def test_outlines_of_endless_regions_are_left_out(finished, monkeypatch, tmp_path):
    row = Row("a.png", "ok", score=0.5, height=9, width=9, global_score=0, local_score=0, verdict="ok", regions=2)
    square = find_regions(np.pad(np.ones((3, 3)), 3), 0.5)
    page = whole_page([row], finished.facts, {}, tmp_path, {"a.png": square})
    assert Page(page).data["images"][0]["c"] == [[[3, 3, 6, 3, 6, 6, 3, 6]]]
    monkeypatch.setattr(report, "MAX_POINTS", 3)
    page = whole_page([row], finished.facts, {}, tmp_path, {"a.png": square})
    assert "c" not in Page(page).data["images"][0]


def test_a_bar_that_a_line_crosses_has_the_verdict_of_its_scores():
    scores = [0.0] * 3 + [0.905] * 4 + [1.0]
    judgement = {"criteria": Criteria.manual(0.91).to_json()}
    bars = report.histogram(scores, bins=5)  # the last is from 0.8 to 1, its middle at 0.9
    assert [bar.typical for bar in bars] == pytest.approx([0.0, 0.3, 0.5, 0.7, 0.905])
    assert report._bar_verdicts(bars, judgement) == ["ok"] * 5
    judgement = {"criteria": Criteria.manual(0.902).to_json()}
    assert report._bar_verdicts(bars, judgement)[-1] == "defect"
