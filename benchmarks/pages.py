"""The pages of `headclip serve` in a headless Chromium: pictures of them, and how smooth a large gallery scrolls.

    python benchmarks/pages.py runs/first runs/second --out pictures
    python benchmarks/pages.py --many 10000

Needs the package `playwright` (its own browsers are not used) and Chromium at /usr/bin/chromium or HEADCLIP_CHROMIUM.
With --many a run of so many images is made up, and the gallery is scrolled; the times between frames are printed.
Without a graphics card Chromium draws on the processor, so a real screen does better.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from headclip.inference.run import Row, parquet_bytes
from headclip.inference.run_files import encode_map, encode_preview, map_file, preview_file, quantise

CHROMIUM = os.environ.get("HEADCLIP_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
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
    parser.add_argument("--many", type=int, default=0, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        runs = options.runs or [write_many(Path(place) / "many", options.many or 10_000)]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        with server(runs) as address:
            if options.many:
                measure(browser, f"{address}/runs/many")
            else:
                take_pictures(browser, address, len(runs), options.out)
        browser.close()


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
    page.screenshot(path=path)
    print(path)


@contextmanager
def server(runs: list[Path]) -> Iterator[str]:
    """The address of a server for these runs."""
    command = [sys.executable, "-m", "headclip", "serve", *map(str, runs), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
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
