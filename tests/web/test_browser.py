"""The pages, driven in a real headless Chromium.

`make test-browser` runs these. They need the extra `browser` (playwright, whose own browsers are not used), a Chromium
on the PATH or at HEADCLIP_CHROMIUM, and for accessibility axe-core: `npm install axe-core` in the repository, or
HEADCLIP_AXE=path/to/axe.min.js. What is not there is skipped, unless HEADCLIP_BROWSER=required.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headclip.inference.predict import predict_run
from headclip.judgement.verdicts import Criteria
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Row, parquet_bytes
from headclip.web import server
from headclip.web.app import AppOptions, create_app
from headclip.web.live import LiveRun
from inference.fake_detector import FakeDetector, FakePrediction

pytestmark = pytest.mark.browser
REQUIRED = os.environ.get("HEADCLIP_BROWSER") == "required"
if REQUIRED:
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")

CHROMIUM = os.environ.get("HEADCLIP_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "/usr/bin/chromium"
)
AXE = Path(os.environ.get("HEADCLIP_AXE", Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"))
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
MANY = 10_000


def absent(reason):
    """Skip, or fail where everything has to run."""
    (pytest.fail if REQUIRED else pytest.skip)(reason)


@pytest.fixture(scope="module")
def browser():
    if not Path(CHROMIUM).is_file():
        absent(f"there is no Chromium at {CHROMIUM} (HEADCLIP_CHROMIUM names another)")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


class Joint(FakeDetector):
    """A score that is half of the whole image and half of the map, and says so."""

    def describe(self):
        return super().describe() | {"config": {"alpha": 0.5}}

    def _predict(self, image):
        found = super()._predict(image)
        return FakePrediction(found.score, 0.2, 2 * found.score - 0.2, found.anomaly_map)


class Darker(FakeDetector):
    """Another opinion of the same images."""

    def predict_arrays(self, images, /):
        return super().predict_arrays([255 - image for image in images])


def write_parts(folder: Path) -> Path:
    """Twelve dark parts, of which the last four have a bright blot."""
    folder.mkdir()
    for index in range(12):
        pixels = np.full((96, 128, 3), 20 + 4 * index, np.uint8)
        if index >= 8:
            pixels[30:50, 40 : 60 + 4 * index] = 240
        Image.fromarray(pixels).save(folder / f"part {index:02}.png")
    return folder


def write_many(folder: Path) -> Path:
    """A run of ten thousand rows; their pictures are not there, which a page has to bear as well."""
    folder.mkdir()
    scores = np.random.default_rng(0).beta(2, 8, MANY)
    rows = [
        Row(f"{n:05}.png", "ok", None, float(s), 96, 96, float(s), float(s), "maps/x.png") for n, s in enumerate(scores)
    ]
    (folder / "results.parquet").write_bytes(parquet_bytes(rows))
    facts = {"format": "headclip-run", "version": 1, "status": "finished", "root": str(folder), "settings": {}}
    (folder / "run.json").write_text(
        json.dumps(facts | {"created": "", "versions": {}, "scale": {"low": 0.0, "high": 1.0}})
    )
    return folder


@contextmanager
def serving(app):
    """The address of an application that runs in a thread of this process."""
    listening = server.open_socket("127.0.0.1", 0)
    ready = threading.Event()
    uvicorn_server = server._Server(server.configuration(app, 5.0), ready.set)
    thread = threading.Thread(target=uvicorn_server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        uvicorn_server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    parts = write_parts(place / "parts")
    bright = predict_run(Joint(), [parts], place / "bright").folder
    dark = predict_run(Darker(), [parts], place / "dark").folder
    judged = place / "judged"
    shutil.copytree(bright, judged)
    criteria = Criteria.manual(0.25, 0.5, low=0.2, high=0.3)
    labels = {f"part {index:02}.png": int(index >= 8) for index in range(12)}
    rejudge(judged, criteria, labels=labels)
    generous = place / "generous"
    shutil.copytree(bright, generous)
    rejudge(generous, Criteria(0.2, 0.2, 0.2, pixel=0.99, alarm_pixel=0.5))
    facts = json.loads((generous / "run.json").read_text())
    facts["settings"]["roi"] = "25%,12,50%,60"
    (generous / "run.json").write_text(json.dumps(facts))
    live = LiveRun(None, max_pixels=10**6, patience=20.0)
    runs = (bright, dark, judged, write_many(place / "many"), generous)
    with serving(create_app(AppOptions(detector=FakeDetector(), runs=runs, live=live))) as address:
        yield address


@pytest.fixture
def open_page(browser, site):
    """A function that opens a page of the site; errors of its scripts fail the test."""
    contexts, problems = [], []

    def show(path, width=1280, height=860, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if "Content Security" in message.text else None
        )
        page.goto(site + path)
        if path.startswith(("/runs/", "/compare/")):
            page.wait_for_selector("[data-ready]")
        return page

    yield show
    for context in contexts:
        context.close()
    assert not problems


def until(page, condition, seconds=30):
    """Wait for a condition in the page. Playwright's own way would need eval, which the pages' policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, f"it did not come to {condition}"
        page.wait_for_timeout(30)


def counts(page):
    return {
        kind: int(page.locator(f"#count-{kind}").inner_text().replace(",", "")) for kind in ("defect", "review", "ok")
    }


def drag_line(page, share, root="#histogram"):
    """Take the line to a share of the histogram's width."""
    bars = page.locator(f"{root} .bars").bounding_box()
    grip = page.locator(f"{root} .grip").bounding_box()
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    for part in (0.3, 0.6, 1.0):
        start = grip["x"] + grip["width"] / 2
        end = bars["x"] + share * bars["width"]
        page.mouse.move(start + part * (end - start), bars["y"] + 40)
    page.mouse.up()


def test_dragging_the_line_judges_again_without_the_server(open_page):
    page = open_page("/runs/bright")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(500)
    asked.clear()
    drag_line(page, 0.01)
    until(page, "document.getElementById('count-defect').textContent === '12'")
    drag_line(page, 0.99)
    until(page, "document.getElementById('count-defect').textContent === '0'")
    assert counts(page) == {"defect": 0, "review": 0, "ok": 12}
    assert page.locator("#origin").inner_text() == "drawn by hand"
    assert not [url for url in asked if "/runs/" in url and "/thumb/" not in url and "/heat/" not in url]
    slider = page.locator("#histogram [role=slider]")
    assert "12 ok" in slider.get_attribute("aria-valuetext")
    drawn = slider.get_attribute("aria-valuenow")
    # The address follows a moment later, and may still have the line of the first drag.
    until(page, f"Number(new URL(location.href).searchParams.get('t') ?? NaN) === {float(drawn)}")
    page.reload()
    page.wait_for_selector("[data-ready]")
    assert slider.get_attribute("aria-valuenow") == drawn  # the address keeps it
    page.locator("#reset").click()
    assert slider.get_attribute("aria-valuenow") != drawn


def test_the_line_moves_by_keys(open_page):
    page = open_page("/runs/bright")
    slider = page.locator("#histogram [role=slider]")
    slider.focus()
    page.keyboard.press("Home")
    until(page, "document.getElementById('count-defect').textContent === '12'")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("End")
    until(page, "document.getElementById('count-ok').textContent === '12'")
    until(page, "document.getElementById('announce').textContent.includes('12 OK')")


def test_a_judged_run_shows_its_band_its_words_and_how_it_does_on_labels(open_page):
    page = open_page("/runs/judged")
    found = counts(page)
    assert found["review"] > 0
    assert sum(found.values()) == 12
    assert page.locator("#histogram rect.band").count() == 1
    assert page.locator("#origin").inner_text() == "set by hand"  # nothing but a calibration is called one
    assert "labelled defects caught" in page.locator("#known").inner_text()
    page.locator("[data-filter=review]").click()
    assert page.locator(".gallery .card").count() == found["review"]
    assert page.locator("#shown").inner_text() == f"{found['review']} of 12 images"


def test_what_if_the_map_weighed_more(open_page):
    page = open_page("/runs/bright")
    alarms = counts(page)["defect"]
    best = page.locator(".gallery .score").first
    before = best.inner_text()
    page.locator("#what-if summary").click()
    page.locator("#alpha").fill("0.9")
    until(page, "document.getElementById('origin').textContent === 'what if'")
    assert best.inner_text() != before
    assert counts(page)["defect"] == alarms  # the line goes along
    assert "the same images raise them" in page.locator("#alpha-words").inner_text()
    page.locator("#alpha-reset").click()
    assert best.inner_text() == before
    open_page("/runs/dark").locator("#what-if").wait_for(state="hidden")  # its score is no such sum


def test_search_and_order(open_page):
    page = open_page("/runs/bright")
    names = page.locator(".gallery li:has(.card) .name")
    page.locator("#sort").select_option("name")
    assert names.first.inner_text() == "part 00.png"
    page.locator("#query").fill("11")
    until(page, "document.querySelectorAll('.gallery .card').length === 1")
    assert names.all_inner_texts() == ["part 11.png"]


def test_zoom_pan_and_the_value_under_the_pointer(open_page):
    page = open_page("/runs/bright")
    page.locator(".gallery .card").first.click()
    zoom = page.locator("#zoom-value")
    until(page, "document.querySelector('.stage canvas').width > 1")
    fitting = zoom.inner_text()
    stage = page.locator(".stage")
    box = stage.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.wheel(0, -600)
    until(page, f"document.getElementById('zoom-value').textContent !== '{fitting}'")
    sheet = page.locator(".sheet")
    before = sheet.evaluate("node => node.style.transform")
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 30)
    page.mouse.up()
    assert sheet.evaluate("node => node.style.transform") != before
    page.keyboard.press("0")
    assert zoom.inner_text() == fitting
    page.mouse.move(middle[0] - 1, middle[1])
    assert " · map 0." in page.locator(".readout").inner_text()


def show_regions(page, name):
    """Open an image, in the order of names, with its regions."""
    page.locator("#sort").select_option("name")
    page.locator(".gallery .card", has_text=name).click()
    page.keyboard.press("3")
    page.wait_for_selector("#regions-list button")


def test_layers_and_regions(open_page):
    page = open_page("/runs/bright")
    show_regions(page, "part 11")
    assert page.locator("#regions-list button").count() == 1
    assert page.locator(".stage path").count() == 1
    page.locator("#regions-list button").click()
    assert page.locator(".stage path.chosen").count() == 1
    canvases = page.locator(".stage canvas")
    assert canvases.nth(0).is_visible()
    page.keyboard.press("1")
    until(page, "document.querySelectorAll('.stage canvas')[0].hidden")
    page.keyboard.press("2")
    until(page, "!document.querySelectorAll('.stage canvas')[1].hidden")


def test_regions_of_images_that_are_not_ok_begin_lower(open_page):
    page = open_page("/runs/generous")
    show_regions(page, "part 11")
    assert page.locator("#pixel-value").inner_text() == "0.500"
    assert page.locator(".stage svg.roi path").get_attribute("d") == "M32 12h64v60h-64Z"
    page.keyboard.press("Escape")
    page.locator(".gallery .card", has_text="part 03").click()
    assert page.locator("#pixel-value").inner_text() == "0.990"
    until(page, "document.querySelector('#regions-title').textContent.startsWith('No region')")


def test_a_mark_is_there_after_a_reload(open_page):
    page = open_page("/runs/dark")
    page.locator("#sort").select_option("name")
    page.locator(".gallery .card", has_text="part 03").click()
    page.keyboard.press("f")
    until(page, "document.getElementById('mark-hint').textContent === 'Kept.'")
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-name").inner_text() == "part 04.png"
    page.locator("[data-mark=miss]").click()
    until(page, "document.getElementById('count-marked').textContent === '2'")
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector("[data-ready]")
    page.locator("[data-filter=marked]").click()
    page.locator("#sort").select_option("name")
    assert page.locator(".flagged").all_inner_texts() == ["false alarm", "miss"]
    with page.expect_download() as download:
        page.locator("#export").click()
    rows = Path(download.value.path()).read_text().splitlines()
    assert [row.split(",")[:3] for row in rows[1:]] == [
        ["part 03.png", "0", "false alarm"],
        ["part 04.png", "1", "miss"],
    ]


def test_the_gallery_by_keys(open_page):
    page = open_page("/runs/bright")
    page.locator(".gallery .card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.closest('li').dataset.index") == "2"
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open]")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    until(page, "document.activeElement.closest('li')?.dataset.index === '3'")  # focus returns to the image seen
    assert page.locator(".gallery .card[tabindex='0']").count() == 1


def test_ten_thousand_images_cost_no_more_than_a_few(open_page):
    page = open_page("/runs/many")
    assert page.locator("#shown").inner_text() == "10,000 images"
    page.locator("#sort").select_option("name")
    few = page.locator(".gallery li").count()
    assert few < 120
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector("text=09999.png")
    assert page.locator(".gallery li").count() < 120
    assert page.locator(".gallery li").last.get_attribute("aria-posinset") == "10000"
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_selector("text=00000.png")
    drag_line(page, 0.3)
    until(page, "document.getElementById('origin').textContent === 'drawn by hand'")
    assert sum(counts(page).values()) == MANY


def test_dropped_images_are_judged(open_page, tmp_path):
    page = open_page("/runs/live")
    assert page.locator(".bench").is_hidden()
    picture = tmp_path / "mine.png"
    Image.new("RGB", (64, 48), (90, 90, 90)).save(picture)
    letter = tmp_path / "letter.png"
    letter.write_text("this is a letter")
    page.locator("#files").set_input_files([picture, letter])
    page.wait_for_selector(".gallery .card:not(.broken)")
    assert "0.353" in page.locator(".gallery .card:not(.broken)").inner_text()
    assert "not a PNG" in page.locator("#drop-errors").inner_text()
    assert page.locator("#drop-state").inner_text() == "1 image judged, 1 failed"
    data = page.evaluate_handle(
        """() => { const data = new DataTransfer(); const canvas = document.createElement('canvas');
        canvas.width = canvas.height = 32; const text = atob(canvas.toDataURL('image/png').split(',')[1]);
        data.items.add(new File([Uint8Array.from(text, (c) => c.charCodeAt(0))], 'dropped.png')); return data; }"""
    )
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    page.wait_for_selector("text=dropped.png")


def test_two_runs_side_by_side(open_page):
    page = open_page("/compare/bright/dark")
    assert "12 images in both" in page.locator("#pairing").inner_text()
    drag_line(page, 0.01, "#histogram-first")
    drag_line(page, 0.99, "#histogram-second")
    until(page, "document.getElementById('count-first').textContent === '12'")
    page.locator("[data-filter=both]").click()
    assert page.locator("#empty").is_visible()
    page.locator("[data-filter=both]").click()
    page.locator(".gallery .card").first.click()
    assert page.locator(".stage").count() == 2
    page.locator("#zoom-in").click()
    transforms = page.locator(".sheet").evaluate_all("nodes => nodes.map((node) => node.style.transform)")
    assert transforms[0] == transforms[1]  # both show the same place


def test_phone_width_has_no_sideways_scrolling(open_page):
    for path in ("/", "/runs/bright", "/compare/bright/dark", "/runs/live", "/api"):
        page = open_page(path, 360, 740, has_touch=True, is_mobile=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
    page = open_page("/runs/bright", 360, 740, has_touch=True, is_mobile=True)
    page.locator(".gallery .card").first.tap()
    assert page.locator("#viewer .stage").bounding_box()["width"] <= 360
    assert page.locator("#viewer").evaluate("node => node.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page, scheme):
    if not AXE.is_file():
        absent("axe-core is not there (npm install axe-core, or HEADCLIP_AXE=path/to/axe.min.js)")
    script = AXE.read_text()
    found = {}
    for path in ("/", "/runs/judged", "/runs/live", "/compare/bright/dark", "/api", "/login", "viewer"):
        page = open_page("/runs/judged" if path == "viewer" else path, color_scheme=scheme)
        if path == "viewer":
            page.locator(".gallery .card").first.click()
            page.keyboard.press("3")
            page.wait_for_selector("#regions-title:has-text('egion')")
        page.evaluate(script)
        results = page.evaluate("axe.run({ resultTypes: ['violations'] })")
        bad = [item for item in results["violations"] if item["impact"] in ("serious", "critical", "moderate")]
        if bad:
            found[path] = [(item["id"], [node["html"][:160] for node in item["nodes"]][:3]) for item in bad]
    assert not found
