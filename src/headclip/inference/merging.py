"""Joining the shards of a run into one ordinary run folder, row by row what a single process would have written."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headclip.data.discover import ImageFile, ImageSet, stored_path
from headclip.inference.predict import Progress, RunSummary, count_stage, scale_facts
from headclip.judgement.calibration import Calibration
from headclip.judgement.regions import Region
from headclip.judgement.verdicts import Criteria
from headclip.runs.files import (
    JOURNAL,
    MASKS,
    REGIONS,
    RunFolderError,
    map_file,
    mask_file,
    preview_file,
    take_file,
    write_atomic,
)
from headclip.runs.judging import judgement_facts
from headclip.runs.output import check_output
from headclip.runs.overlay import LevelHistogram
from headclip.runs.parts import Part, check_parts, criteria_of, home, open_part, owner, part_folders, some
from headclip.runs.records import read_labels, regions_bytes
from headclip.runs.render import count_sound, render_overlays
from headclip.runs.report import report_pieces, thumbnail_names
from headclip.runs.run import Entry, Row, Run, read_facts, read_journal
from headclip.runs.shards import MERGED, read_listing
from headclip.runs.writer import RunWriter

_CHUNK = 256  # images put on record at a time


def merge_runs(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    root: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> RunSummary:
    """Join the shards of a run; killed at any moment, the same call goes on; done twice, the second has nothing to do.

    Args:
        paths: folders with shards/ in them, or the folders of shards, in any order.
        out: where the whole run goes; None puts it where the shards are, if that is one place.
        root: where the images are, for shards that saw them under different paths.
        overwrite: replace another run that is in `out`.

    Raises:
        RunFolderError: a shard is missing, unfinished, of other settings or of another list of images, or given twice;
            an image has no row; `out` holds something else or cannot be written. Each says which and what to do.
    """
    started = time.perf_counter()
    parts = check_parts([open_part(folder) for folder in part_folders(paths)])
    target = Path(out) if out is not None else home([part.folder for part in parts])
    images = _images(parts, root)
    entries, judged = _entries(parts, images), _judged_rows(parts)
    digest = _digest(parts, entries.values())
    old = read_facts(target)
    is_merge = old is not None and MERGED in old
    if old is not None and is_merge and old["status"] == "finished" and old[MERGED]["digest"] == digest:
        return RunSummary(target, Run.open(target).rows, 0, len(images), time.perf_counter() - started)
    if old is not None and not (is_merge or overwrite):
        raise RunFolderError(
            f"{target} holds a run that was not merged from shards; choose another --out, or --overwrite"
        )
    check_output(target, resume=is_merge and not overwrite, overwrite=overwrite)
    extra = {MERGED: {"shards": len(parts), "digest": digest}, "created": min(p.facts["created"] for p in parts)}
    extra["timing"] = {"earlier_seconds": round(sum(part.facts["timing"]["seconds"] for part in parts), 3)}
    writer = RunWriter(
        target,
        images,
        parts[0].facts["settings"],
        arguments=parts[0].facts.get("arguments") or {},
        resume=is_merge and not overwrite,
        overwrite=overwrite,
        extra=extra,
    )
    with writer:
        writer.drop([name for name in writer.entries if name not in entries])
        new = _join(writer, parts, entries, progress)
        rows = _finish(writer, parts, judged, progress)
    return RunSummary(writer.folder, rows, new, len(images) - new, time.perf_counter() - started)


def _images(parts: Sequence[Part], root: str | Path | None) -> ImageSet:
    """The list of all images, in the order of a single process."""
    roots = sorted({str(part.facts["root"]) for part in parts})
    if root is None and len(roots) > 1:
        raise RunFolderError(
            f"the shards saw the images in different places: {some(roots)}; if these are one and the same folder, "
            "say where it is: --root FOLDER"
        )
    place = stored_path(roots[0] if root is None else root).absolute()
    names = read_listing(parts[0].folder.parent, parts[0].listing)
    return ImageSet(place, tuple(ImageFile(place / name, name) for name in names))


def _entries(parts: Sequence[Part], images: ImageSet) -> dict[str, Entry]:
    """The one entry of every image, in order; what shards have on record of other images is left out.

    Raises:
        RunFolderError: an image has none.
    """
    known = {part.folder: read_journal(part.folder / JOURNAL)[0] for part in parts}
    entries: dict[str, Entry] = {}
    missing: dict[Path, list[str]] = {}
    for file in images:
        part = owner(parts, file.name)
        entry = known[part.folder].get(file.name)
        if entry is None:
            missing.setdefault(part.folder, []).append(file.name)
        else:
            entries[file.name] = entry
    for folder, names in missing.items():
        raise RunFolderError(
            f"the shard in {folder} has no row for {len(names):,} image(s) ({some(names)}); run it again with --resume"
        )
    return entries


def _judged_rows(parts: Sequence[Part]) -> dict[str, Row]:
    """The rows of the parts' tables, which know verdicts and numbers of regions, by name."""
    return {row.path: row for part in parts for row in Run.open(part.folder).rows}


def _digest(parts: Sequence[Part], entries: Iterable[Entry]) -> str:
    """What a merged run is made of; the same parts give the same digest."""
    digest = hashlib.sha256(parts[0].listing.encode())
    digest.update(json.dumps([criteria_of(parts[0]), sorted(str(part.facts["root"]) for part in parts)]).encode())
    for entry in entries:
        digest.update(repr(entry).encode())
    return digest.hexdigest()


def _join(
    writer: RunWriter, parts: Sequence[Part], entries: Mapping[str, Entry], progress: Callable[[Progress], None]
) -> int:
    """Put every entry on record, its files in place before; return how many were not there yet."""
    failed = sum(entry.row.status == "failed" for entry in entries.values())
    new = 0
    chunk: list[Entry] = []
    for done, (name, entry) in enumerate(entries.items(), 1):
        known, files = writer.entries.get(name) == entry, (map_file(name), preview_file(name))
        if entry.row.status == "ok" and not (known and all((writer.folder / file).is_file() for file in files)):
            for file in files:
                take_file(owner(parts, name).folder / file, writer.folder, file)
        chunk += [] if known else [entry]
        if done % _CHUNK == 0 or done == len(entries):
            writer.append(chunk)
            new, chunk = new + len(chunk), []
            progress(Progress("joining", done, len(entries), failed))
    return new


def _finish(
    writer: RunWriter, parts: Sequence[Part], judged: Mapping[str, Row], progress: Callable[[Progress], None]
) -> tuple[Row, ...]:
    """Overlays, tables and report of the whole, on the scale of the whole; verdicts and regions are the shards'."""
    rows = [judged[row.path] for row in writer.rows()]
    ok = [row for row in rows if row.status == "ok"]
    histogram = LevelHistogram()
    damaged = count_sound(writer.folder, ok, histogram)
    if damaged:
        shard = owner(parts, damaged[0].path).shard
        raise RunFolderError(
            f"the files of {len(damaged):,} image(s) are damaged ({some([row.path for row in damaged])}); run shard "
            f"{shard} again with --resume, and merge with --overwrite"
        )
    scale = histogram.scale()
    count = count_stage(progress, "rendering", len(ok), len(rows) - len(ok))
    thumbnails = render_overlays(writer.folder, ok, scale, thumbnail_names(ok), count)
    regions = _join_regions(writer.folder, parts, rows)
    labels, judgement = read_labels(writer.folder), parts[0].facts.get("judgement")
    facts: dict[str, Any] = {"scale": scale_facts(scale), "judgement": None}
    if judgement is not None:
        kept = judgement["calibration"]
        calibration = None if kept is None else Calibration.from_values(kept)
        criteria = Criteria.from_json(judgement["criteria"])
        facts["judgement"] = judgement_facts(rows, criteria, calibration, judgement["note"], labels)
    page = report_pieces(rows, writer.facts | facts, thumbnails, writer.folder, regions, labels)
    writer.finish(page, facts, rows)
    return tuple(rows)


def _join_regions(folder: Path, parts: Sequence[Part], rows: Sequence[Row]) -> dict[str, tuple[Region, ...]]:
    """Masks and outlines of all shards, in the order of the rows."""
    shutil.rmtree(folder / MASKS, ignore_errors=True)
    (folder / REGIONS).unlink(missing_ok=True)
    if criteria_of(parts[0]) is None:
        return {}
    found = {name: known for part in parts for name, known in Run.open(part.folder).load_regions().items()}
    regions = {row.path: found[row.path] for row in rows if row.path in found}
    for name in regions:
        take_file(owner(parts, name).folder / mask_file(name), folder, mask_file(name))
    write_atomic(folder, REGIONS, regions_bytes(regions), force=True)
    return regions
