"""The inspector of an image, driven in a real headless Chromium; see test_browser.py for what that needs."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")

from headclip.inference.detector import Detector
from headclip.inference.predict import predict_run
from headclip.web.app import AppOptions, create_app
from inference.pictures import write_pictures
from tiny_clip import make_backbone, make_config
from web.test_browser import AXE, browser, serving, until  # noqa: F401 (a fixture)

pytestmark = pytest.mark.browser
DONE = "!document.getElementById('explain-content').hasAttribute('aria-busy')"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place: Path = tmp_path_factory.mktemp("inspector")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no checkpoint
        detector = Detector(make_backbone(make_config()), device="cpu", image_size=42, settings={"seed": 1})
    run = predict_run(detector, [write_pictures(place / "in", 2)], place / "tiny").folder
    with serving(create_app(AppOptions(detector=detector, runs=(run,)))) as address:
        yield address


@pytest.fixture
def page(browser, site, request):  # noqa: F811
    options = getattr(request, "param", {"viewport": {"width": 1280, "height": 860}})
    context = browser.new_context(**options)
    context.set_default_timeout(60_000)
    shown = context.new_page()
    problems = []
    shown.on("pageerror", lambda error: problems.append(str(error)))
    shown.goto(f"{site}/runs/tiny")
    shown.wait_for_selector("[data-ready]")
    shown.locator(".gallery .card").first.click()
    yield shown
    context.close()
    assert not problems


def settled(page, condition):
    until(page, f"({condition}) && {DONE}")


def test_layers_are_switched_and_switched_back(page):
    page.locator("#explain").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".layer-list li")
    assert page.evaluate("document.activeElement.id") == "explain-content"  # not lost with the button
    result = page.locator(".result")
    before = result.inner_text()
    boxes = page.locator(".layer-list input")
    assert [boxes.nth(index).is_checked() for index in range(4)] == [True, False, True, False]  # start, 1, 2, 3
    boxes.nth(3).focus()
    page.keyboard.press("Space")
    settled(page, "document.querySelector('.stage-label').textContent === 'Map by layers 2–3'")
    assert "as judged" in result.inner_text()
    assert page.locator(".heads tr").count() == 2
    assert page.evaluate("document.activeElement.type") == "checkbox"
    page.locator("text=The model's own").click()
    settled(page, "document.querySelector('.stage-label').hidden")
    assert result.inner_text() == before


def test_the_last_layer_has_to_stay(page):
    page.keyboard.press("e")
    page.wait_for_selector(".layer-list li")
    box = page.locator(".layer-list input").nth(2)
    box.click()
    assert box.is_checked()
    assert "One layer has to stay" in page.locator("#explain-content").inner_text()


def test_heads_by_keys(page):
    page.keyboard.press("e")
    page.wait_for_selector(".heads button")
    name = page.locator("#viewer-name").inner_text()
    assert page.locator(".heads [tabindex='0']").count() == 1
    page.locator(".heads [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.head") == "2.2"
    assert page.locator("#viewer-name").inner_text() == name  # the arrows did not leave the image
    page.keyboard.press("Enter")
    settled(page, "document.querySelector('.stage-label').textContent === 'Map by layer 2, 1 head off'")
    assert page.evaluate("document.activeElement.dataset.head") == "2.2"
    assert page.locator("[data-head='2.2']").get_attribute("aria-pressed") == "false"
    page.locator("text=All heads").click()
    settled(page, "document.querySelector('.stage-label').hidden")


def test_what_if_and_where_a_layer_adds(page):
    page.keyboard.press("e")
    page.wait_for_selector(".layer-list li")
    result = page.locator(".result")
    before = result.inner_text()
    page.locator("#explain-content input[type=range]").first.fill("1")
    assert "as judged" in result.inner_text()
    page.locator("text=Back to the model's").click()
    assert result.inner_text() == before
    where = page.locator(".layer-list button").nth(2)
    where.click()
    assert where.get_attribute("aria-pressed") == "true"
    assert page.locator(".sheet canvas").nth(2).is_visible()
    page.keyboard.press("ArrowRight")  # another image: what was said is about the one before
    until(page, "!document.querySelector('.layer-list') && !document.getElementById('explain').hidden")
    assert page.locator(".sheet canvas").nth(2).is_hidden()


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
    ],
    indirect=True,
)
def test_axe_finds_nothing_serious_and_nothing_scrolls_sideways(page):
    page.locator("#explain").click()
    page.wait_for_selector(".heads button")
    assert page.locator("#viewer").evaluate("node => node.scrollWidth <= node.clientWidth")
    page.locator(".viewer-body").evaluate("node => { node.scrollTop = 0; }")
    stage, side = (page.locator(part).bounding_box() for part in ("#stages", ".side"))
    if page.viewport_size["width"] < 820:
        assert side["y"] - stage["y"] - stage["height"] == pytest.approx(0, abs=1)  # no empty strip below the picture
    if not AXE.is_file():
        pytest.skip("axe-core is not there (npm install axe-core, or HEADCLIP_AXE=path/to/axe.min.js)")
    page.evaluate(AXE.read_text())
    results = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    bad = [item for item in results["violations"] if item["impact"] in ("serious", "critical", "moderate")]
    assert not [(item["id"], [node["html"][:160] for node in item["nodes"]][:3]) for item in bad]
