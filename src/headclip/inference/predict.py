"""Judging a folder of images: decode, model, files, each in its own threads, and a row for every image."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headclip.data.decode import DEFAULT_MAX_PIXELS
from headclip.data.discover import ImageFile, ImageSet, discover
from headclip.data.prefetch import Decoded, decode_ahead
from headclip.data.volumes.model import VolumeSet
from headclip.data.volumes.names import keep_salt
from headclip.inference.resuming import find_work
from headclip.inference.session import Progress, Session, Stage, images_ahead
from headclip.inference.volumes_inputs import refuse_division, volume_facts
from headclip.judgement.choosing import Chosen, Judging, choose
from headclip.prediction import Judge
from headclip.runs.files import MASKS, REGIONS, REPORT
from headclip.runs.judging import JudgedRows, judge_rows, judgement_facts
from headclip.runs.output import check_output
from headclip.runs.overlay import LevelHistogram, Scale
from headclip.runs.records import read_labels
from headclip.runs.render import render_overlays
from headclip.runs.report import report_pieces, thumbnail_names
from headclip.runs.run import Entry, Row, read_facts
from headclip.runs.shards import Shard, check_whole, keep_listing
from headclip.runs.volumes import judge_volumes, score_share, write_volumes
from headclip.runs.writer import RunWriter

_PART_PAGE = "<!doctype html><title>headclip</title><p>One shard of a run: headclip merge makes the report of all.\n"

Elsewhere = Callable[[Sequence[ImageFile], Path, LevelHistogram, Callable[[list[Entry]], None]], None]
"""Judges files on other machines: given the files, the run folder in which their maps and previews shall be, the
histogram to add the maps to, and a function that puts judged images on record."""


@dataclass(frozen=True)
class RunSummary:
    """What `predict_run` did. rows: all of the run; judged, skipped: images done now and in earlier calls."""

    folder: Path
    rows: tuple[Row, ...]
    judged: int
    skipped: int
    seconds: float

    @property
    def ok(self) -> list[Row]:
        """The judged images."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def failed(self) -> list[Row]:
        """The images that could not be judged, each with its reason."""
        return [row for row in self.rows if row.status == "failed"]

    @property
    def gone(self) -> int:
        """How many rows are of images that were judged in earlier calls and are not among the inputs any more."""
        return max(0, len(self.rows) - self.judged - self.skipped)

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.folder / REPORT

    def top(self, count: int) -> list[Row]:
        """The most anomalous images, highest score first."""
        return sorted(self.ok, key=lambda row: -(row.score or 0.0))[:count]


def predict_run(
    detector: Judge,
    inputs: Sequence[str | Path] | ImageSet,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    judging: Judging | None = None,
    arguments: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
    refresh_seconds: float = 10.0,
    category_of: Callable[[ImageFile], str] | None = None,
    shard: Shard | None = None,
    elsewhere: Elsewhere | None = None,
) -> RunSummary:
    """Judge all images that `inputs` name and write the run folder `out`.

    A broken image becomes a failed row. Interrupted or killed at any moment, the folder stays readable and
    `resume` goes on: what is judged already (same content of the file, also under a new name) is kept, failed images
    are tried again.

    Args:
        detector: a `Detector`, or anything with its `predict_arrays`, `describe` and `batch_size`.
        inputs: files, folders and globs, or what `discover` made of them.
        max_pixels: larger images are refused, each with a row that says so.
        judging: thresholds for verdicts and regions; by default those of the run that is resumed, else the
            checkpoint's, else none.
        arguments: kept in run.json.
        progress: called in this thread after every batch and every overlay.
        refresh_seconds: how often results.csv is brought up to date on the way.
        category_of: what an image shows, for methods that put it into words; None leaves it at the detector's.
        shard: judge this part of the images alone, into a run folder of its own below `out`, for `merge_runs`.
        elsewhere: judges in place of this process, which keeps the record; `detector` then only describes itself.

    Raises:
        InputError: an input does not exist or holds no image.
        CalibrationError: the calibration belongs to another model.
        RunFolderError: `out` cannot be used or written.
        KeyboardInterrupt: passed on, with the folder left ready for `resume`.
    """
    started = time.perf_counter()
    images = inputs if isinstance(inputs, ImageSet) else discover(inputs)
    settings = detector.describe() | ({} if category_of is None else {"category": "each image's own"})
    every, extra, target = images, None, Path(out)
    if isinstance(images, VolumeSet):
        refuse_division(shard, elsewhere)
        settings |= {"volumes": images.facts()}
        extra = {"volumes": volume_facts(images)}
    if shard is not None:
        images, target = shard.of(every), shard.folder(Path(out))
    earlier = (read_facts(target) or {}) if resume else None
    chosen = choose(judging or Judging(), settings, (earlier or {}).get("judgement"))
    if shard is not None:
        check_whole(Path(out))
        check_output(target, resume=resume, overwrite=overwrite)
        digest = keep_listing(target.parent, [file.name for file in every])
        extra = {"shard": {"index": shard.index, "count": shard.count, "listing": digest, "images": len(every)}}
    writer = RunWriter(
        target,
        images,
        settings,
        arguments=arguments,
        resume=resume,
        overwrite=overwrite,
        extra=extra,
        listed_only=shard is not None,
    )
    with writer:
        if isinstance(images, VolumeSet) and images.salt is not None:
            keep_salt(writer.folder, images.salt)
        histogram = LevelHistogram()
        todo = find_work(writer, images, every, histogram, earlier, renamed=category_of is None)
        skipped = len(images) - len(todo)
        session = Session(detector, writer, histogram, progress, len(images), skipped, refresh_seconds)
        session.category_of = category_of
        ahead = images_ahead(detector)
        if elsewhere is not None:
            elsewhere(todo, writer.folder, histogram, session.append)
        else:
            with closing(decode_ahead(todo, max_pixels=max_pixels, max_images=ahead)) as decoded:
                session.judge(decoded)
        if isinstance(images, VolumeSet):
            write_volumes(writer.folder, images, writer.rows())
        finish = _finish if shard is None else _finish_part
        rows = finish(writer, histogram, chosen, progress)
    return RunSummary(writer.folder, rows, len(todo), skipped, time.perf_counter() - started)


def judge_more(
    detector: Judge, writer: RunWriter, files: Sequence[ImageFile], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> None:
    """Add images to the record of a run that stays open; its tables are left to the caller, and nothing is drawn.

    For files that appear one by one; `predict_run` is for those that are all there, and finishes such a run too.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    session = Session(detector, writer, LevelHistogram(), lambda progress: None, len(files), 0, float("inf"))
    with closing(decode_ahead(files, max_pixels=max_pixels, max_images=max(4, detector.batch_size))) as decoded:
        session.judge(decoded)


class _Kept:
    """A record in memory, for files that are judged on behalf of another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[Entry] = []

    def append(self, entries: Sequence[Entry], /) -> None:
        self.entries += entries

    def refresh_table(self) -> None:
        """There is no table."""


def judge_files(
    detector: Judge,
    folder: Path,
    files: Sequence[ImageFile],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    category_of: Callable[[ImageFile], str] | None = None,
    read: Callable[[ImageFile, int], Decoded] | None = None,
) -> tuple[list[Entry], LevelHistogram]:
    """Judge files as `predict_run` does, maps and previews below `folder`; whoever asked keeps the record.

    read: from a file and the most pixels allowed to pixels, for files that are not on a disk.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    kept, histogram = _Kept(folder), LevelHistogram()
    session = Session(detector, kept, histogram, lambda progress: None, len(files), 0, float("inf"))
    session.category_of = category_of
    ahead = images_ahead(detector)
    workers = 2 if read is None else 8  # a store answers slowly and many at once
    decoded = decode_ahead(files, max_pixels=max_pixels, max_images=ahead, workers=workers, read=read)
    with closing(decoded):
        session.judge(decoded)
    return kept.entries, histogram


def _finish(
    writer: RunWriter, histogram: LevelHistogram, chosen: Chosen, progress: Callable[[Progress], None]
) -> tuple[Row, ...]:
    """Overlays, regions, tables and report. The scale needs all maps of the run, so this comes last."""
    writer.refresh_table()
    rows = writer.rows()
    ok = [row for row in rows if row.status == "ok"]
    scale = histogram.scale()
    count = count_stage(progress, "rendering", len(ok), len(rows) - len(ok))
    thumbnails = render_overlays(writer.folder, ok, scale, thumbnail_names(ok), count)
    judged = _judge(writer, rows, chosen, progress)
    judge_volumes(writer.folder, writer.folder, chosen.criteria, score_share(writer.facts))
    labels = read_labels(writer.folder)
    facts = {
        "scale": scale_facts(scale),
        "judgement": judgement_facts(judged.rows, chosen.criteria, chosen.calibration, chosen.note, labels),
    }
    page = report_pieces(judged.rows, writer.facts | facts, thumbnails, writer.folder, judged.regions, labels)
    writer.finish(page, facts, judged.rows)
    return judged.rows


def _finish_part(
    writer: RunWriter, histogram: LevelHistogram, chosen: Chosen, progress: Callable[[Progress], None]
) -> tuple[Row, ...]:
    """Regions and tables of a shard. Overlays and report need the scale of all shards: merging makes them."""
    judged = _judge(writer, writer.rows(), chosen, progress)
    facts = {
        "scale": scale_facts(histogram.scale()),
        "judgement": judgement_facts(judged.rows, chosen.criteria, chosen.calibration, chosen.note),
    }
    writer.finish(_PART_PAGE, facts, judged.rows)
    return judged.rows


def _judge(writer: RunWriter, rows: Sequence[Row], chosen: Chosen, progress: Callable[[Progress], None]) -> JudgedRows:
    """Verdicts and regions of all rows; masks and regions of earlier thresholds go."""
    shutil.rmtree(writer.folder / MASKS, ignore_errors=True)
    (writer.folder / REGIONS).unlink(missing_ok=True)
    if chosen.criteria is None:
        return judge_rows(writer.folder, rows, None)
    failed = sum(row.status == "failed" for row in rows)
    on_judged = count_stage(progress, "regions", len(rows), failed)
    return judge_rows(writer.folder, rows, chosen.criteria, writer.folder, on_judged)


def count_stage(progress: Callable[[Progress], None], stage: Stage, total: int, failed: int) -> Callable[[str], None]:
    """A function that is called with each image's name and reports how many there have been."""
    numbers = itertools.count(1)
    return lambda name: progress(Progress(stage, next(numbers), total, failed))


def scale_facts(scale: Scale) -> dict[str, float]:
    """A scale as run.json keeps it."""
    return {"low": round(scale.low, 6), "high": round(scale.high, 6)}
