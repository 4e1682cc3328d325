"""What a calibration needs of a finished run: its scores and the levels of its maps. No model."""

from __future__ import annotations

import numpy as np

from headclip.data.levels import MAP_MAXIMUM
from headclip.data.volumes.model import DEFAULT_TOP_SHARE
from headclip.judgement.copies import path_mark
from headclip.judgement.regions import RegionRules, extent_level, region_level
from headclip.judgement.scored import Progress, Scored, Watch, silent
from headclip.runs.pictures import read_levels
from headclip.runs.run import Run
from headclip.runs.volumes import read_volumes


def score_run(run: Run, rules: RegionRules, *, progress: Progress = silent, watch: Watch | None = None) -> Scored:
    """The scores of a run, and the levels of its maps; no model. Its images are looked up to tell copies apart.

    watch: as for `score_images`.

    Raises:
        RunFolderError: a map is missing or damaged.
    """
    found = Scored(source={"kind": "run", "images": len(run.rows)}, rules=rules)
    found.failed = {row.path: row.reason or "unknown reason" for row in run.failed}
    levels: list[float] = []
    extents: list[float] = []
    seen: set[str | None] = set()
    judged = run.ok
    for number, row in enumerate(judged, start=1):
        found.names.append(row.path)
        found.scores.append(float(row.score or 0.0))
        mark = path_mark(run.image_path(row))
        if mark is not None:
            found.contents[row.path] = found.files[row.path] = mark
        if row.map is not None:
            values = read_levels(run.folder / row.map)
            levels.append(region_level(values, rules))
            extents.append(extent_level(values, rules))
            if watch is not None and (mark is None or mark not in seen):
                watch(row.path, (values / np.float32(MAP_MAXIMUM)).astype(np.float32))
        elif rules == RegionRules() and row.peak is not None:
            levels.append(row.peak)
        seen.add(mark)
        progress(number, len(judged), len(found.failed))
    tables = {(row.score, row.slices): row for row in read_volumes(run.folder).volumes if row.score is not None}
    if tables:  # a volume that is there twice counts once
        found.volumes = tuple(row.score or 0.0 for row in tables.values())
        found.volume_share = float(run.facts.get("volumes", {}).get("top_share") or DEFAULT_TOP_SHARE)
    found.levels = levels if len(levels) == len(found.names) else None
    found.extents = extents if len(extents) == len(found.names) else None
    return found
