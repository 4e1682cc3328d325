"""The page of a run: one HTML file that opens from disk, holds its pictures, and needs no network."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from headclip.data.discover import printable, stored_path
from headclip.judgement.regions import Region
from headclip.judgement.verdicts import Criteria
from headclip.runs.files import overlay_file, preview_file
from headclip.runs.overlay import Scale, colour_table
from headclip.runs.render import Thumbnail, make_thumbnails
from headclip.runs.run import Row
from headclip.runs.volumes import report_volumes, score_share
from headclip.templates import page_template

MAX_THUMBNAILS = 2000
MAX_THUMBNAIL_BYTES = 45_000_000
MAX_POINTS = 400_000
BINS = 48
_DATA_MARK = "\0data\0"  # where the data go; no text holds it
_DATA_TAG = '<script id="data" type="application/json">'


@dataclass(frozen=True)
class Bar:
    """One bar of the score histogram: scores from low to high, and height as a share of the highest bar.

    typical: the median of its scores; the middle of an empty bar.
    """

    low: float
    high: float
    count: int
    share: float
    typical: float


def thumbnail_names(rows: Iterable[Row]) -> set[str]:
    """The images whose pictures go into the page: the most anomalous ones. The others are linked."""
    ordered = sorted(rows, key=_score, reverse=True)
    return {row.path for row in ordered[:MAX_THUMBNAILS]}


def report_pieces(
    rows: Sequence[Row],
    facts: Mapping[str, Any],
    thumbnails: Mapping[str, Thumbnail],
    folder: Path,
    regions: Mapping[str, Sequence[Region]] = MappingProxyType({}),
    labels: Mapping[str, int] = MappingProxyType({}),
) -> Iterator[str]:
    """The page piece by piece: whole, with its pictures, it is as large as all other things of a run together.

    Args:
        rows: the table of the run.
        facts: run.json, with `scale`, and with `judgement` where thresholds were applied.
        thumbnails: pictures to embed, by image name; at most MAX_THUMBNAIL_BYTES of them are.
        folder: the run folder, for links to files beside the page.
        regions: by image name; outlines of at most MAX_POINTS corners are drawn.
        labels: 0 normal, 1 anomalous, by image name, where known.
    """
    ok = sorted((row for row in rows if row.status == "ok"), key=_score, reverse=True)
    failed = [row for row in rows if row.status == "failed"]
    scores = [_score(row) for row in ok]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    judgement = facts.get("judgement")
    shown = _that_fit(ok, thumbnails)
    images = itertools.chain(
        _images(ok, thumbnails, shown, regions, labels if judgement else {}),
        ({"n": row.path, "r": row.reason} for row in failed),
    )
    top_share = score_share(facts)
    criteria = Criteria.from_json(judgement["criteria"]) if judgement else None
    volumes, volume_count = report_volumes(folder, rows, criteria, top_share)
    hidden = facts.get("volumes", {}).get("names") == "neutral"
    data = {
        "volumes": [{"n": volume["volume"], "w": volume["worst"], "p": volume["paths"]} for volume in volumes],
        "colours": base64.b64encode(colour_table().tobytes()).decode(),
        "low": _digits(low),
        "high": _digits(high),
        "roi": facts.get("settings", {}).get("roi"),
        "root": _link(os.path.relpath(stored_path(facts["root"]), folder)) if ok and not hidden else "",
    }
    pieces = page_template("headclip.runs", "report.html").generate(
        title=printable(folder.resolve().name),
        data=Markup(_DATA_MARK),
        ok=ok,
        failed=failed,
        volumes=volumes,
        volume_count=volume_count,
        profiles=[_profile(volume["profile"], low, high) for volume in volumes],
        top_share=top_share,
        hidden=hidden,
        judgement=judgement,
        marks=_marks(judgement, low, high),
        bar_verdicts=_bar_verdicts(histogram(scores), judgement),
        median=scores[len(scores) // 2] if scores else None,
        bars=histogram(scores),
        low=low,
        high=high,
        scale=facts["scale"],
        gradient=_gradient(),
        embedded=len(shown),
        groups=_fact_groups(facts),
        created=str(facts["created"])[:16].replace("T", " "),
        version=facts["versions"].get("headclip", ""),
    )
    for piece in pieces:
        before, mark, after = piece.partition(_DATA_MARK)
        yield before
        if mark:
            yield '{"images":['
            for number, image in enumerate(images):
                yield ("," if number else "") + _script_json(image)
            yield "]," + _script_json(data).removeprefix("{")
            yield after


def _that_fit(rows: Iterable[Row], thumbnails: Mapping[str, Thumbnail]) -> set[str]:
    """The images whose thumbnails go into the page: the first ones that fill MAX_THUMBNAIL_BYTES."""
    room, names = MAX_THUMBNAIL_BYTES, set()
    for row in rows:
        thumbnail = thumbnails.get(row.path)
        if thumbnail is not None:
            room -= len(thumbnail.image) + len(thumbnail.map)
            if room >= 0:
                names.add(row.path)
    return names


def histogram(scores: Sequence[float], bins: int = BINS) -> list[Bar]:
    """Equal bins from the lowest to the highest score.

    >>> [bar.count for bar in histogram([0.1, 0.1, 0.2, 0.5], bins=4)]
    [2, 1, 0, 1]
    """
    if not scores:
        return []
    low, high = min(scores), max(scores)
    width = (high - low) / bins or 1.0 / bins
    held: list[list[float]] = [[] for _ in range(bins)]
    for score in sorted(scores):
        held[min(int((score - low) / width + 1e-9), bins - 1)].append(score)
    highest = max(map(len, held))
    bars = []
    for index, inside in enumerate(held):
        left, right = low + index * width, low + (index + 1) * width
        typical = inside[len(inside) // 2] if inside else (left + right) / 2
        bars.append(Bar(left, right, len(inside), len(inside) / highest, typical))
    return bars


def _profile(scores: Sequence[float | None], low: float, high: float) -> str:
    """Scores along a volume as points of a line, 100 wide and 30 high, on the run's scale; failed slices leave none."""
    width = 100.0 / max(1, len(scores) - 1)
    span = (high - low) or 1.0
    return " ".join(
        f"{index * width:.2f},{30.0 - 30.0 * (score - low) / span:.2f}"
        for index, score in enumerate(scores)
        if score is not None
    )


def _images(
    rows: Iterable[Row],
    thumbnails: Mapping[str, Thumbnail],
    shown: set[str],
    regions: Mapping[str, Sequence[Region]],
    labels: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    """What the page's script needs of each image, under one-letter names: there may be many thousands.

    v: verdict, k: number of regions, c: their outlines, y: label; each absent where not known.
    """
    points = MAX_POINTS
    for row in rows:
        image: dict[str, Any] = {
            "n": row.path,
            "s": _digits(_score(row)),
            "g": round(row.global_score or 0.0, 6),
            "l": round(row.local_score or 0.0, 6),
            "h": row.height,
            "w": row.width,
            "o": _link(overlay_file(row.path)),
            "p": _link(preview_file(row.path)),
        }
        image |= {"v": row.verdict} if row.verdict else {}
        image |= {"k": row.regions} if row.regions else {}
        image |= {"y": labels[row.path]} if row.path in labels else {}
        drawn = [_outline(region) for region in regions.get(row.path, ())]
        points -= sum(len(ring) // 2 for rings in drawn for ring in rings)
        if drawn and points >= 0:
            image["c"] = drawn
        if row.path in shown:
            thumbnail = thumbnails[row.path]
            image |= {"t": thumbnail.image, "m": thumbnail.map}
        yield image


def _outline(region: Region) -> list[list[float]]:
    """The rings of a region, each as x, y, x, y, ... in pixels of the image."""
    return [[_whole(value) for point in ring for value in point] for ring in (region.polygon, *region.holes)]


def _whole(value: float) -> float:
    return int(value) if value == int(value) else round(value, 2)


def _marks(judgement: Mapping[str, Any] | None, low: float, high: float) -> list[tuple[float, str]]:
    """Thresholds within the histogram: where, as a share of its width, and what."""
    if judgement is None or high <= low:
        return []
    criteria = judgement["criteria"]
    names = {"threshold": "threshold", "low": "review from", "high": "defect from"}
    at = {criteria[key]: name for key, name in reversed(names.items()) if criteria[key] is not None}
    return [
        ((value - low) / (high - low), f"{name} {value:.4f}")
        for value, name in sorted(at.items())
        if low < value < high
    ]


def _bar_verdicts(bars: Sequence[Bar], judgement: Mapping[str, Any] | None) -> list[str]:
    """The verdict on the typical score of each bar: a line may cross it."""
    if judgement is None:
        return []
    criteria = Criteria.from_json(judgement["criteria"])
    return [criteria.verdict(bar.typical).value for bar in bars]


def report_thumbnails(
    page: Path, folder: Path, rows: Sequence[Row], scale: Mapping[str, float]
) -> dict[str, Thumbnail]:
    """The pictures that an earlier page of the same run holds; made anew where it cannot be read.

    Raises:
        RunFolderError: they have to be made anew, and a map or preview is missing or damaged.
    """
    try:
        text = page.read_text(encoding="utf-8")
        start = text.index(_DATA_TAG) + len(_DATA_TAG)
        images = json.loads(text[start : text.index("</script>", start)])["images"]
        return {image["n"]: Thumbnail(image["t"], image["m"]) for image in images if "t" in image}
    except (OSError, ValueError, KeyError, TypeError):
        ok = [row for row in rows if row.status == "ok"]
        names = thumbnail_names(ok)
        chosen = [row for row in ok if row.path in names]
        return make_thumbnails(folder, chosen, Scale(scale["low"], scale["high"]))


def _score(row: Row) -> float:
    return row.score or 0.0


def _digits(score: float) -> float:
    """A score as the page's script has it; all rounded alike, none lies outside the range that it is drawn in."""
    return round(score, 6)


def _link(path: str) -> str:
    """A relative path as an address; `%`, `#`, `?` and the like in file names are escaped."""
    return quote(path.replace(os.sep, "/"), errors="surrogateescape")


def _script_json(data: Any) -> str:
    """JSON that no file name can break out of a script element with."""
    text = json.dumps(data, separators=(",", ":"))  # ASCII only, so no line separators either
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


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
    settings = {key: value for key, value in facts["settings"].items() if key != "calibration"}
    judgement = facts.get("judgement") or {}
    calibration = judgement.get("calibration") or {}
    groups = {
        "Run": run,
        "Thresholds": judgement.get("criteria"),
        "Calibration": {key: value for key, value in calibration.items() if key not in ("model", "format")},
        "Model": settings,
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
