"""The pages of `headclip serve` in a headless Chromium: pictures of them, and how smooth a large gallery scrolls.

    python benchmarks/pages.py runs/first runs/second --out pictures
    python benchmarks/pages.py --tutorial --out docs/pictures
    python benchmarks/pages.py --many 10000

Needs the package `playwright` (its own browsers are not used) and Chromium on the PATH or at HEADCLIP_CHROMIUM.
With --tutorial the steps of docs/tutorial.md are done in a temporary folder, with its own lines of Python and the
package elpv-dataset, and every picture of that page is made. With --many a run of so many images is made up, and the
gallery is scrolled; the times between frames are printed.
Without a graphics card Chromium draws on the processor, so a real screen does better.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from headclip.data.levels import quantise
from headclip.demo import NOTICE_TEXT, dataset_folder
from headclip.runs.files import map_file, preview_file
from headclip.runs.pictures import encode_map, encode_preview
from headclip.runs.run import Row, parquet_bytes

CHROMIUM = os.environ.get("HEADCLIP_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
MOST_BYTES = 250_000  # of a picture in the documents
NOTICE = """\
The pictures tutorial-*.webp, elpv-wrong.png and elpv-compared.png in this folder show images of the ELPV dataset, as
published in the Python package elpv-dataset, with anomaly maps laid over them. They are not under headclip's licence
but under that of the images:
Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International (CC BY-NC-SA 4.0),
https://creativecommons.org/licenses/by-nc-sa/4.0/

"""
DIFFERENT = 24  # pictures of a made-up run
SCROLL = """async ([seconds, speed]) => {
  const frames = []; let last = performance.now(); const end = last + 1000 * seconds;
  while (last < end) {
    const now = await new Promise(requestAnimationFrame);
    frames.push(now - last); scrollBy(0, speed * (now - last) / 1000); last = now;
  }
  return frames.slice(1);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    parser.add_argument("--tutorial", action="store_true", help="the pictures of docs/tutorial.md")
    parser.add_argument("--many", type=int, default=0, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        if options.tutorial:
            options.out.mkdir(parents=True, exist_ok=True)
            tell_tutorial(browser, Path(place), options.out.resolve())
        elif options.many:
            with server([write_many(Path(place) / "many", options.many)]) as address:
                measure(browser, f"{address}/runs/many")
        else:
            runs = options.runs or [write_many(Path(place) / "many", 10_000)]
            with server(runs) as address:
                take_pictures(browser, address, len(runs), options.out)
        browser.close()


def tell_tutorial(browser: Browser, place: Path, out: Path) -> None:
    """What docs/tutorial.md tells, step by step, with a picture wherever it shows one."""
    code = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    subprocess.run([sys.executable, "-c", code[0]], cwd=place, check=True)
    headclip("predict cells/today --out runs/today", place)
    page = opened(browser, (place / "runs/today/report.html").as_uri())
    _shot(page, out / "tutorial-report.webp")
    headclip("calibrate cells/normal --false-alarms 0.05 --out cells.json", place)
    headclip("rejudge runs/today --calibration cells.json", place)
    headclip("rejudge runs/today --calibration cells.json --labels cells/known.csv", place)
    with server(["runs/today", "--live", "--calibration", "cells.json"], place) as address:
        for name, scheme, width, height in (
            ("gallery", "light", 1280, 800),
            ("dark", "dark", 1280, 800),
            ("phone", "light", 390, 844),
        ):
            page = opened(browser, f"{address}/runs/today", scheme, width, height)
            _shot(page, out / f"tutorial-{name}.webp")
        page = opened(browser, f"{address}/runs/today")
        page.locator(".gallery .card").first.click()
        page.keyboard.press("3")
        _shot(page, out / "tutorial-viewer.webp")
        page.keyboard.press("Escape")
        mark(page, *worst(place))
        _shot(page, out / "tutorial-marks.webp")
        page = opened(browser, f"{address}/runs/live")
        page.locator("#files").set_input_files(sorted((place / "cells/tomorrow").iterdir())[:4])
        page.wait_for_selector(".gallery .card >> nth=3")
        _shot(page, out / "tutorial-live.webp")
    (place / "cells/line").mkdir()
    with server(["--watch", "cells/line", "--out", "runs/line", "--calibration", "cells.json"], place) as address:
        coming = sorted((place / "cells/tomorrow").iterdir())
        for path in coming:
            shutil.copy(path, place / "cells/line")
        page = opened(browser, f"{address}/runs/line")
        page.wait_for_selector(f"text={len(coming)} images")
        _shot(page, out / "tutorial-watch.webp")
    (out / "tutorial-LICENSE.txt").write_text(NOTICE + NOTICE_TEXT.partition("by-nc-sa/4.0/\n\n")[2], encoding="utf-8")


def opened(browser: Browser, address: str, scheme: str = "light", width: int = 1280, height: int = 800) -> Page:
    """A page in a window of its own."""
    size = {"width": width, "height": height}
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(address)
    if address.startswith("http"):
        page.wait_for_selector("[data-ready]")
    return page


def headclip(line: str, place: Path) -> None:
    """A command of the tutorial, in its folder."""
    print(f"headclip {line}", flush=True)
    subprocess.run([sys.executable, "-m", "headclip", *line.split()], cwd=place, check=True, stdout=subprocess.DEVNULL)


def worst(place: Path) -> tuple[str, str]:
    """The sound cell with the highest score and the cracked one with the lowest: a false alarm and a miss."""
    lines = dataset_folder().joinpath("labels.csv").read_text(encoding="utf-8").splitlines()
    cracked = {Path(file).name for file, defect, _ in map(str.split, lines) if float(defect) == 1.0}
    with (place / "runs/today/results.csv").open(encoding="utf-8", newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: float(row["score"]))
    names = [row["path"] for row in rows]
    return [name for name in names if name not in cracked][-1], next(name for name in names if name in cracked)


def mark(page: Page, alarm: str, miss: str) -> None:
    """Mark two pictures, and show the marked ones."""
    for name, key in ((alarm, "f"), (miss, "m")):
        page.locator("#query").fill(name)
        page.locator(".gallery .card", has_text=name).click()
        page.keyboard.press(key)
        page.wait_for_selector("#mark-hint:text-is('Kept.')")
        page.keyboard.press("Escape")
    page.locator("#query").fill("")
    page.locator("[data-filter=marked]").click()


def take_pictures(browser: Browser, address: str, runs: int, out: Path) -> None:
    """The gallery and the viewer, light, dark and at phone width, and the comparison where there are two runs."""
    out.mkdir(parents=True, exist_ok=True)
    for name, scheme, width, height in (
        ("light", "light", 1440, 900),
        ("dark", "dark", 1440, 900),
        ("phone", "light", 390, 844),
    ):
        page = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page()
        page.goto(address)
        if runs > 1:
            _shot(page, out / f"runs-{name}.png")
            page.locator(".runs a").first.click()
        page.wait_for_selector("[data-ready]")
        _shot(page, out / f"gallery-{name}.png")
        page.locator(".gallery .card").first.click()
        page.keyboard.press("3")
        _shot(page, out / f"viewer-{name}.png")
        page.keyboard.press("Escape")
        if runs > 1:
            page.locator("nav a", has_text="Compare").click()
            page.wait_for_selector("#compare-page[data-ready]")
            _shot(page, out / f"compare-{name}.png")


def measure(browser: Browser, address: str) -> None:
    """Scroll for some seconds at reading speed and at flying speed; print the times between frames."""
    page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    page.goto(address)
    page.wait_for_selector("[data-ready]")
    page.wait_for_timeout(2000)
    print(f"{page.locator('#shown').inner_text()}, {page.locator('.gallery li').count()} of them in the page")
    for speed in (1500, 30_000):
        frames = np.array(page.evaluate(SCROLL, [4, speed]))
        p50, p95 = np.percentile(frames, [50, 95])
        print(f"scrolling {speed:,} px/s: median {p50:.1f} ms a frame, p95 {p95:.1f} ms, longest {frames.max():.0f} ms")
    page.wait_for_timeout(1500)
    loaded = page.evaluate(
        "[...document.querySelectorAll('.gallery img')].filter((image) => image.naturalWidth).length"
    )
    print(f"{loaded} of {page.locator('.gallery img').count()} pictures there 1.5 s after the scroll")


def write_many(folder: Path, count: int) -> Path:
    """A run of `count` images that share a few files by hard links."""
    rng = np.random.default_rng(0)
    names = [f"line {number % 7}/part {number:05}.png" for number in range(count)]
    for number, name in enumerate(names):
        for path, make in ((folder / preview_file(name), _preview), (folder / map_file(name), _map)):
            path.parent.mkdir(parents=True, exist_ok=True)
            first = folder / f".{make.__name__}{number % DIFFERENT}"
            if not first.exists():
                first.write_bytes(make(rng))
            path.hardlink_to(first)
    scores = rng.beta(3, 9, count)
    rows = [
        Row(name, "ok", None, float(score), 640, 800, float(score), float(score), map_file(name))
        for name, score in zip(names, scores, strict=True)
    ]
    (folder / "results.parquet").write_bytes(parquet_bytes(rows))
    facts = {"format": "headclip-run", "version": 1, "status": "finished", "created": "", "root": str(folder)}
    facts |= {"settings": {}, "versions": {}, "scale": {"low": 0.1, "high": 0.9}}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def _preview(rng: np.random.Generator) -> bytes:
    return encode_preview(np.asarray(_smooth(rng).convert("RGB")))


def _map(rng: np.random.Generator) -> bytes:
    return encode_map(quantise(np.asarray(_smooth(rng), dtype=np.float32) / np.float32(255)))


def _smooth(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 255, (8, 10), dtype=np.uint8)).resize((800, 640))


def _shot(page: Page, path: Path) -> None:
    page.wait_for_timeout(2500)  # pictures and maps arrive one by one
    if path.suffix == ".webp":
        path.write_bytes(_webp(page.screenshot()))
    else:
        page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def _webp(png: bytes) -> bytes:
    """A screenshot with no more than MOST_BYTES."""
    for quality in range(85, 0, -10):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() < MOST_BYTES:
            break
    return buffer.getvalue()


@contextmanager
def server(arguments: Sequence[Path | str], place: Path | None = None) -> Iterator[str]:
    """The address of a server with these arguments, started in a folder."""
    command = [sys.executable, "-m", "headclip", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=place) as process:
        assert process.stdout is not None
        found = re.search(r"http://[^/\s]+", process.stdout.readline())
        if found is None:
            raise SystemExit("the server did not start")
        try:
            yield found.group(0)
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
