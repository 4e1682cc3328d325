"""A page with the images that were judged worst: false alarms and misses, with map and true defects."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from headclip.data.decode import decode
from headclip.data.levels import quantise
from headclip.errors import HeadclipError
from headclip.evaluation.judged import JudgedImage, read_truth
from headclip.evaluation.scoring import DatasetResult
from headclip.files import write_atomically
from headclip.metrics.pixel import bin_values
from headclip.runs.overlay import (
    HIGH_QUANTILE,
    LOW_QUANTILE,
    MIN_SPAN,
    LevelHistogram,
    Scale,
    tint,
)

_SIDE = 320
_OUTLINE = (0, 230, 255)
_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; } figure img { width: 49%; vertical-align: top; }
figcaption { font-size: .85rem; overflow-wrap: anywhere; margin-top: .3rem; }
.warning { background: #b00020; color: white; padding: .6rem 1rem; }
"""

Progress = Callable[[str, int, int, int], None]


def worst_images(result: DatasetResult, count: int) -> dict[str, list[JudgedImage]]:
    """At most `count` images of each kind, the worst first, by title.

    With image metrics: normal images with the highest scores, anomalous ones with the lowest. In pixel-only
    datasets, where no score is judged: anomalous images in which the map tells defects apart least (pixel AUROC).
    """
    scored = [image for image in result.images if image.ok]
    if result.dataset.info.level == "pixel":
        located = result.located
        known = [image for image in scored if image.name in located]
        known.sort(key=lambda image: located[image.name])
        return {"Defects found worst": known[:count]}
    normal = [image for image in scored if image.record.label == 0]
    anomalous = [image for image in scored if image.record.label == 1]
    normal.sort(key=lambda image: -(image.score or 0.0))
    anomalous.sort(key=lambda image: image.score or 0.0)
    return {
        "False alarms: normal images with the highest scores": normal[:count],
        "Misses: anomalous images with the lowest scores": anomalous[:count],
    }


def write_worst(
    results: Sequence[DatasetResult],
    path: Path,
    count: int,
    progress: Progress = lambda stage, done, total, failed: None,
) -> None:
    """Write the page. Maps that were not kept are computed again for the images shown."""
    sections = []
    for result in results:
        groups = worst_images(result, count)
        total, done = sum(len(images) for images in groups.values()), 0
        title = f"drawing the worst of {result.dataset.info.title}"
        maps: dict[str, NDArray[np.float32] | str] = {}
        for image in (image for images in groups.values() for image in images):
            progress(title, done, total, 0)
            maps[image.name] = _map(image)
            done += 1
        progress(title, done, total, 0)
        scale = _scale(result, [found for found in maps.values() if not isinstance(found, str)])
        sections.append(_section(result, groups, maps, scale))
    write_atomically(path, _page(results, sections))


def _map(image: JudgedImage) -> NDArray[np.float32] | str:
    """The map of an image, or why there is none."""
    try:
        return image.load_map() if image.load_map is not None else "no map was kept"
    except HeadclipError as error:
        return str(error)


def _scale(result: DatasetResult, maps: Sequence[NDArray[np.float32]]) -> Scale:
    """One scale of colours for a dataset: from the quantiles of all its pixels, or of the maps shown."""
    states = [category.state for category in result.categories if category.state is not None]
    states = [state for state in states if len(state.bins)]
    if not states:
        histogram = LevelHistogram()
        for found in maps:
            histogram.update(quantise(found))
        return histogram.scale()
    values = np.concatenate([bin_values(state) for state in states])
    weights = np.concatenate([state.positives + state.negatives for state in states])
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    low, high = (float(values[order][min(int(np.searchsorted(share, q)), len(order) - 1)]) for q in _QUANTILES)
    low = min(low, 1.0 - MIN_SPAN)
    return Scale(low, max(high, low + MIN_SPAN))


_QUANTILES = (LOW_QUANTILE, HIGH_QUANTILE)


def _section(
    result: DatasetResult,
    groups: dict[str, list[JudgedImage]],
    maps: dict[str, NDArray[np.float32] | str],
    scale: Scale,
) -> str:
    parts = [f"<h2>{html.escape(result.dataset.info.title)}, {html.escape(result.method)}</h2>"]
    if result.leakage:
        parts.append(f'<p class="warning">{html.escape(result.leakage)}</p>')
    for title, images in groups.items():
        figures = "\n".join(_figure(result, image, maps[image.name], scale) for image in images)
        parts.append(f'<h3>{html.escape(title)}</h3>\n<div class="images">{figures or "<p>none</p>"}</div>')
    return "\n".join(parts)


def _figure(result: DatasetResult, image: JudgedImage, found: NDArray[np.float32] | str, scale: Scale) -> str:
    record = image.record
    facts = [record.category, record.defect, f"score {image.score:.4f}" if image.score is not None else ""]
    if image.name in result.located:
        facts.append(f"pixel AUROC {100 * result.located[image.name]:.1f}")
    caption = f"{html.escape(image.name)}<br>{html.escape(', '.join(fact for fact in facts if fact))}"
    try:
        pictures = _pictures(result, image, found, scale)
    except HeadclipError as error:
        found, pictures = str(error), []
    if isinstance(found, str):
        caption += f"<br>{html.escape(found)}"
    tags = "".join(f'<img src="{uri}" alt="" loading="lazy"> ' for uri in pictures)
    return f"<figure>{tags}<figcaption>{caption}</figcaption></figure>"


def _pictures(result: DatasetResult, image: JudgedImage, found: NDArray[np.float32] | str, scale: Scale) -> list[str]:
    """The image with its true defects outlined, and the image with its map, as data URIs."""
    pixels = decode(image.record.path)
    small = Image.fromarray(pixels)
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    size = (pixels.shape[0], pixels.shape[1])
    truth = read_truth(image.record, result.dataset.info.mask_threshold, size, size)
    outlined = small if truth.mask is None else _outline(small, truth.mask)
    pictures = [_uri(outlined)]
    if not isinstance(found, str):
        pictures.append(_uri(tint(small, scale.normalise(found))))
    return pictures


def _outline(picture: Image.Image, mask: NDArray[np.bool_]) -> Image.Image:
    """The picture with a line around every defect, however small it is."""
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    inside = np.asarray(share) > 0
    edge = ndimage.binary_dilation(inside, iterations=2) & ~inside
    pixels = np.array(picture.convert("RGB"))
    pixels[edge] = _OUTLINE
    return Image.fromarray(pixels)


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _page(results: Sequence[DatasetResult], sections: Sequence[str]) -> str:
    titles = ", ".join(dict.fromkeys(result.dataset.info.title for result in results))
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Worst images: {html.escape(titles)}</title>\n'
        f"<style>{_STYLE}</style>\n<h1>Worst images</h1>\n"
        "<p>Left the image, its true defects outlined in cyan; right the same with the map, coloured on one "
        "scale for the dataset.</p>\n" + "\n".join(sections) + "\n</html>\n"
    )
