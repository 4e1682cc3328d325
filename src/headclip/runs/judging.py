"""Judging the rows of a run from what is on disk: verdicts from scores, regions and masks from maps. No model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headclip.judgement.calibration import Calibration
from headclip.judgement.regions import MAXIMUM, Region, find_regions, region_mask
from headclip.judgement.verdicts import Criteria, Verdict
from headclip.runs.files import REGIONS, mask_file, write_atomic
from headclip.runs.labels import label_figures
from headclip.runs.pictures import encode_mask, read_levels
from headclip.runs.records import regions_bytes
from headclip.runs.render import in_threads
from headclip.runs.run import Row


@dataclass(frozen=True)
class JudgedRows:
    """rows: those given, in order, with verdict and regions; regions: by image name, of the images that have any."""

    rows: tuple[Row, ...]
    regions: dict[str, tuple[Region, ...]]


def judge_rows(
    folder: Path,
    rows: Sequence[Row],
    criteria: Criteria | None,
    target: Path | None = None,
    on_done: Callable[[str], None] = lambda name: None,
) -> JudgedRows:
    """Judge the rows of a run by thresholds; None takes verdicts and regions away.

    A map is read only where its highest value is above the pixel threshold.

    Args:
        folder: the run, which holds the maps.
        target: where masks and the list of regions are written; None writes nothing.

    Raises:
        RunFolderError: a map is missing or damaged, or a file cannot be written.
    """
    if criteria is None:
        return JudgedRows(tuple(replace(row, verdict=None, regions=None) for row in rows), {})
    regions: dict[str, tuple[Region, ...]] = {}
    judged = []
    for row, found in zip(rows, in_threads(partial(_judge_row, folder, criteria, target), rows), strict=True):
        judged.append(found[0])
        if found[1]:
            regions[row.path] = found[1]
        on_done(row.path)
    if target is not None:
        write_atomic(target, REGIONS, regions_bytes(regions), force=True)
    return JudgedRows(tuple(judged), regions)


def _judge_row(folder: Path, criteria: Criteria, target: Path | None, row: Row) -> tuple[Row, tuple[Region, ...]]:
    if row.status != "ok" or row.score is None:
        return replace(row, verdict=None, regions=None), ()
    verdict = criteria.verdict(row.score).value
    pixel = criteria.pixel_for(row.score)
    if pixel is None or row.map is None:
        return replace(row, verdict=verdict, regions=None), ()
    if row.peak is not None and row.peak <= pixel:
        return replace(row, verdict=verdict, regions=0), ()
    levels = read_levels(folder / row.map)
    regions = find_regions(levels, pixel, criteria.rules, pixel_mm=criteria.pixel_mm)
    if regions and target is not None:
        mask = region_mask(levels, pixel, criteria.rules)
        write_atomic(target, mask_file(row.path), encode_mask(mask))
    peak = int(levels.max()) / MAXIMUM if row.peak is None else row.peak
    return replace(row, verdict=verdict, regions=len(regions), peak=peak), regions


def judgement_facts(
    rows: Iterable[Row],
    criteria: Criteria | None,
    calibration: Calibration | None = None,
    note: str | None = None,
    labels: Mapping[str, int] | None = None,
) -> dict[str, Any] | None:
    """What run.json says of the thresholds in force; None without any.

    criteria, calibration: JSON-able; note: what they are worth, one sentence; verdicts, alarms, regions: counts over
    the images; ok_with_regions: images that are ok by score and show a region; labelled: `labels.label_figures` where
    labels are known.
    """
    if criteria is None:
        return None
    ok = [row for row in rows if row.status == "ok"]
    verdicts = Counter(row.verdict for row in ok)
    if note is None:
        note = "Thresholds set by hand; no promise." if calibration is None else calibration.describe()
    return {
        "criteria": criteria.to_json(),
        "calibration": None if calibration is None else json.loads(calibration.to_json()),
        "note": note,
        "verdicts": {verdict.value: verdicts[verdict.value] for verdict in Verdict},
        "alarms": sum(criteria.alarm(row.score or 0.0) for row in ok),
        "regions": sum(row.regions or 0 for row in ok),
        "ok_with_regions": sum(row.verdict == Verdict.ok.value and bool(row.regions) for row in ok),
        "labelled": label_figures(ok, criteria, labels) if labels else None,
    }
