"""What a calibration needs of a finished run: its scores and the levels of its maps. No model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from headclip.data.levels import MAP_MAXIMUM
from headclip.data.volumes.model import DEFAULT_TOP_SHARE
from headclip.judgement.copies import path_mark
from headclip.judgement.regions import RegionRules, extent_level, region_level
from headclip.judgement.scored import Progress, Scored, Watch, silent
from headclip.runs.files import RunFolderError
from headclip.runs.pictures import read_levels
from headclip.runs.render import in_threads
from headclip.runs.run import Row, Run
from headclip.runs.volumes import read_volumes, score_share


@dataclass(frozen=True)
class _Measured:
    """What is read of one image: `copies.path_mark`, the levels of its map, and the map where it is wanted."""

    mark: str | None
    level: float | None
    extent: float | None
    values: NDArray[np.uint16] | None


def score_run(run: Run, rules: RegionRules, *, progress: Progress = silent, watch: Watch | None = None) -> Scored:
    """The scores of a run, and the levels of its maps; no model. Its images are looked up to tell copies apart.

    Where all regions count, a map that is gone is known by its highest value; then nothing is known of extents.

    watch: as for `score_images`.

    Raises:
        RunFolderError: a map that is needed is missing or damaged.
    """
    found = Scored(source={"kind": "run", "images": len(run.rows)}, rules=rules)
    found.failed = {row.path: row.reason or "unknown reason" for row in run.failed}
    levels: list[float | None] = []
    extents: list[float | None] = []
    seen: set[str | None] = set()
    judged = run.ok
    measured = in_threads(partial(_measure, run, rules, watch is not None), judged)
    for number, (row, one) in enumerate(zip(judged, measured, strict=True), start=1):
        found.names.append(row.path)
        found.scores.append(float(row.score or 0.0))
        if one.mark is not None:
            found.contents[row.path] = found.files[row.path] = one.mark
        levels.append(one.level)
        extents.append(one.extent)
        if watch is not None and one.values is not None and (one.mark is None or one.mark not in seen):
            watch(row.path, np.divide(one.values, MAP_MAXIMUM, dtype=np.float32))
        seen.add(one.mark)
        progress(number, len(judged), len(found.failed))
    tables = {(row.score, row.slices): row for row in read_volumes(run.folder).volumes if row.score is not None}
    if tables:  # a volume that is there twice counts once
        found.volumes = tuple(row.score or 0.0 for row in tables.values())
        found.volume_share = score_share(run.facts) or DEFAULT_TOP_SHARE
    found.levels, found.extents = _all_known(levels), _all_known(extents)
    return found


def _measure(run: Run, rules: RegionRules, keep: bool, row: Row) -> _Measured:
    mark = path_mark(run.image_path(row))
    peak = row.peak if rules == RegionRules() else None
    if row.map is None:
        return _Measured(mark, peak, None, None)
    try:
        values = read_levels(run.folder / row.map)
    except RunFolderError:
        if peak is None or keep:
            raise
        return _Measured(mark, peak, None, None)
    return _Measured(mark, region_level(values, rules), extent_level(values, rules), values if keep else None)


def _all_known(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None
