"""The page of a run: one HTML file that opens from disk, holds its pictures, and needs no network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from headclip.inference.overlay import colour_table
from headclip.inference.run import Row
from headclip.inference.run_files import overlay_file, preview_file
from headclip.inference.run_render import Thumbnail

MAX_THUMBNAILS = 2000
MAX_THUMBNAIL_BYTES = 45_000_000
BINS = 48


@dataclass(frozen=True)
class Bar:
    """One bar of the score histogram: scores from low to high, and height as a share of the highest bar."""

    low: float
    high: float
    count: int
    share: float


def thumbnail_names(rows: Iterable[Row]) -> set[str]:
    """The images whose pictures go into the page: the most anomalous ones. The others are linked."""
    ordered = sorted(rows, key=_score, reverse=True)
    return {row.path for row in ordered[:MAX_THUMBNAILS]}


def render_report(
    rows: Sequence[Row], facts: Mapping[str, Any], thumbnails: Mapping[str, Thumbnail], folder: Path
) -> str:
    """The page as text.

    Args:
        rows: the table of the run.
        facts: run.json, with `scale`.
        thumbnails: pictures to embed, by image name; at most MAX_THUMBNAIL_BYTES of them are.
        folder: the run folder, for links to files beside the page.
    """
    ok = sorted((row for row in rows if row.status == "ok"), key=_score, reverse=True)
    failed = [row for row in rows if row.status == "failed"]
    scores = [_score(row) for row in ok]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    images = _images(ok, thumbnails) + [{"n": row.path, "r": row.reason} for row in failed]
    data = {
        "images": images,
        "colours": base64.b64encode(colour_table().tobytes()).decode(),
        "low": low,
        "high": high,
        "root": _link(os.path.relpath(facts["root"], folder)) if ok else "",
    }
    return _template().render(
        title=folder.resolve().name,
        data=_script_json(data),
        ok=ok,
        failed=failed,
        median=scores[len(scores) // 2] if scores else None,
        bars=histogram(scores),
        low=low,
        high=high,
        scale=facts["scale"],
        gradient=_gradient(),
        embedded=sum("t" in image for image in images),
        groups=_fact_groups(facts),
        created=str(facts["created"])[:16].replace("T", " "),
        version=facts["versions"].get("headclip", ""),
    )


def histogram(scores: Sequence[float], bins: int = BINS) -> list[Bar]:
    """Equal bins from the lowest to the highest score.

    >>> [bar.count for bar in histogram([0.1, 0.1, 0.2, 0.5], bins=4)]
    [2, 1, 0, 1]
    """
    if not scores:
        return []
    low, high = min(scores), max(scores)
    width = (high - low) / bins or 1.0 / bins
    counts = [0] * bins
    for score in scores:
        counts[min(int((score - low) / width + 1e-9), bins - 1)] += 1
    highest = max(counts)
    return [
        Bar(low + index * width, low + (index + 1) * width, count, count / highest)
        for index, count in enumerate(counts)
    ]


def _images(rows: Iterable[Row], thumbnails: Mapping[str, Thumbnail]) -> list[dict[str, Any]]:
    """What the page's script needs of each image, under one-letter names: there may be many thousands."""
    images: list[dict[str, Any]] = []
    room = MAX_THUMBNAIL_BYTES
    for row in rows:
        image: dict[str, Any] = {
            "n": row.path,
            "s": round(_score(row), 6),
            "g": round(row.global_score or 0.0, 6),
            "l": round(row.local_score or 0.0, 6),
            "h": row.height,
            "w": row.width,
            "o": _link(overlay_file(row.path)),
            "p": _link(preview_file(row.path)),
        }
        thumbnail = thumbnails.get(row.path)
        if thumbnail is not None:
            room -= len(thumbnail.image) + len(thumbnail.map)
            if room >= 0:
                image |= {"t": thumbnail.image, "m": thumbnail.map}
        images.append(image)
    return images


def _score(row: Row) -> float:
    return row.score or 0.0


def _link(path: str) -> str:
    """A relative path as an address; `%`, `#`, `?` and the like in file names are escaped."""
    return quote(path.replace(os.sep, "/"), errors="surrogateescape")


def _script_json(data: Any) -> Markup:
    """JSON that no file name can break out of a script element with."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII only, so no line separators either
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _gradient() -> str:
    """The colours as a CSS gradient, for the legend."""
    stops = [colour_table()[index] for index in range(0, 256, 15)]
    return ",".join(f"rgb({red} {green} {blue})" for red, green, blue, _ in stops)


def _fact_groups(facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    counts, timing = facts["counts"], facts["timing"]
    seconds = float(timing["seconds"])
    run = {
        "started": facts["created"],
        "time": f"{seconds:,.1f} s",
        "time in the model": f"{timing['model_seconds']:,.1f} s",
        "images": f"{counts['images']:,}",
        "failed": f"{counts['failed']:,}",
        "images from": facts["root"],
    }
    groups = {
        "Run": run,
        "Model": facts["settings"],
        "Options": facts["arguments"],
        "Versions": facts["versions"],
    }
    return [(name, list(_flat(values))) for name, values in groups.items() if values]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        label = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            yield from _flat(value, label + " / ")
        elif value is not None:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield label, text


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("headclip.inference"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")
