"""Judging a dataset: decode, model, pixel counts; the map is dropped as soon as it has been counted.

Several methods are judged side by side, so that each image is decoded once and runs through the vision tower as
rarely as the methods allow. The folder of each is a run folder as `headclip predict` makes it, but with counts/
instead of maps/ unless maps are to be kept. Killed at any moment, `resume` goes on with what is not on record.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headclip.data.datasets import Dataset
from headclip.data.discover import ImageFile
from headclip.data.prefetch import Decoded, decode_ahead, readable_batches
from headclip.data.records import ImageRecord
from headclip.evaluation.by_category import ByCategory
from headclip.evaluation.judged import JudgedImage, name_images
from headclip.evaluation.peers import CategoryPeers
from headclip.evaluation.recording import JudgingOptions, Recorder, to_resolution
from headclip.evaluation.shots import CategoryShots, Shots
from headclip.inference.detector import Detector
from headclip.inference.session import failed_entry
from headclip.inference.shared import PassGroup, group_by_pass
from headclip.prediction import Prediction
from headclip.runs.files import RUN_JSON
from headclip.runs.run import Entry
from headclip.runs.shards import Shard, listing_hash
from headclip.runs.writer import RunWriter

RUN_PAGE = "<!doctype html><title>headclip evaluate</title><p>Judged by headclip evaluate: see tables.md.\n"
_WAITING = 2  # portions of maps that are counted while the model goes on
_log = logging.getLogger(__name__)

Progress = Callable[[int, int, int], None]
"""Called with the judgements done (an image by a method), their number, and how many failed."""


@dataclass(frozen=True)
class Work:
    """What is left to judge of a dataset, for those who do it on other machines.

    wanted: by file name, the labels of the detectors whose judgement is missing; records, folders: by file name and
    by label; record: puts a detector's judgements on record, whose files must be in place.
    """

    dataset: Dataset
    options: JudgingOptions
    files: list[ImageFile]
    wanted: Mapping[str, list[str]]
    records: Mapping[str, ImageRecord]
    folders: Mapping[str, Path]
    record: Callable[[str, list[Entry]], None]


Elsewhere = Callable[[Work], None]


def judge_dataset(
    detectors: Mapping[str, Detector],
    dataset: Dataset,
    records: list[ImageRecord],
    folders: Mapping[str, Path],
    options: JudgingOptions,
    *,
    arguments: dict[str, Any] | None = None,
    progress: Progress = lambda done, total, failed: None,
    elsewhere: Elsewhere | None = None,
    shard: Shard | None = None,
    shots: Shots | None = None,
) -> dict[str, list[JudgedImage]]:
    """Judge `records` of a dataset; for each detector one result each, in their order.

    Broken images are results, not errors. Detectors, folders and results go by the same labels. elsewhere: judges in
    place of this process, which keeps the record; the detectors then only describe themselves. shard: judge only the
    records of this part, by their names among all. shots: what to compare with, where options say so.

    Raises:
        RunFolderError: a folder cannot be used, written, or resumed with these settings.
        KeyboardInterrupt: passed on; the folders can be resumed.
    """
    names = name_images(records, dataset.root)
    by_name = {file.name: record for file, record in zip(names.files, records, strict=True)}
    every, names = names, names if shard is None else shard.of(names)
    labelled = [file for file in names if by_name[file.name].label is not None]
    about = {"evaluation": {"dataset": dataset.name, "resolution": options.resolution}}
    beside: ByCategory | None = None
    if shots is not None and options.compared.shots is not None:
        beside = CategoryShots(detectors, by_name, shots, options.compared.shots, options.max_pixels)
    if options.compared.peers is not None:
        beside = CategoryPeers(detectors, every, by_name, options.compared.peers, options.max_pixels)
        about["evaluation"]["among"] = listing_hash([file.name for file in every])  # nothing goes on with others
    groups = group_by_pass(detectors) if elsewhere is None else []
    with ExitStack() as stack:
        recorders, writers = {}, {}
        for label, detector in detectors.items():
            folder = folders[label]
            resume = options.resume and (folder / RUN_JSON).is_file()
            settings = detector.describe() | about | options.compared.facts(label, detector)
            writer = stack.enter_context(
                RunWriter(folder, names, settings, arguments=arguments, resume=resume, listed_only=shard is not None)
            )
            writers[label] = writer
            recorders[label] = Recorder(detector, dataset, by_name, writer, options, beside)
        session = _Session(groups, by_name, recorders, options, beside)
        session.judge(labelled, progress, partial(_delegate, elsewhere, dataset) if elsewhere else None)
        for label, writer in writers.items():
            writer.finish(RUN_PAGE, {"dataset": dataset.name, "label": label})
        return {label: [recorder.result(file) for file in names.files] for label, recorder in recorders.items()}


def _delegate(
    elsewhere: Elsewhere,
    dataset: Dataset,
    session: _Session,
    files: list[ImageFile],
    wanted: Mapping[str, list[str]],
    record: Callable[[str, list[Entry]], None],
) -> None:
    folders = {label: recorder.writer.folder for label, recorder in session.recorders.items()}
    elsewhere(Work(dataset, session.options, files, wanted, session.records, folders, record))


def judge_files(
    groups: list[PassGroup],
    records: dict[str, ImageRecord],
    recorders: Mapping[str, Recorder],
    files: list[ImageFile],
    options: JudgingOptions,
) -> None:
    """Judge some images as `judge_dataset` does, into the recorders, for a record that is kept elsewhere.

    records: by the names of the files; recorders: by the labels of the detectors in `groups`.
    """
    _Session(groups, records, recorders, options).judge(files, lambda done, total, failed: None)


@dataclass(frozen=True)
class _Portion:
    """Images with what one detector says of each, or the reason why it says nothing; and each one's seconds."""

    label: str
    items: list[Decoded]
    outcomes: list[Prediction] | str
    seconds: float = 0.0

    def each(self) -> Iterator[tuple[Decoded, Prediction | str]]:
        outcomes = [self.outcomes] * len(self.items) if isinstance(self.outcomes, str) else self.outcomes
        return zip(self.items, outcomes, strict=True)


class _Session:
    """One pass over the images of a dataset that are still to be judged."""

    def __init__(
        self,
        groups: list[PassGroup],
        records: dict[str, ImageRecord],
        recorders: Mapping[str, Recorder],
        options: JudgingOptions,
        beside: ByCategory | None = None,
    ) -> None:
        self._groups, self.records, self.recorders, self.options = groups, records, recorders, options
        self._beside = beside

    def judge(
        self,
        files: list[ImageFile],
        progress: Progress,
        delegate: Callable[..., None] | None = None,
    ) -> None:
        """What is not on record yet; `record` inside keeps count."""
        wanted = {
            file.name: [name for name, known in self.recorders.items() if not known.is_done(file)] for file in files
        }
        todo = [file for file in files if wanted[file.name]]
        total, lost = len(files) * len(self.recorders), 0
        done = total - sum(map(len, wanted.values()))
        progress(done, total, lost)

        def record(label: str, entries: list[Entry]) -> None:
            nonlocal done, lost
            self.recorders[label].writer.append(entries)
            done += len(entries)
            lost += sum(entry.row.status == "failed" for entry in entries)
            progress(done, total, lost)

        if delegate is not None:
            delegate(self, todo, wanted, record)
            return
        for part in [todo] if self._beside is None else self._beside.parts(todo):
            self._judge_part(part, wanted, record)

    def _judge_part(
        self,
        files: list[ImageFile],
        wanted: Mapping[str, list[str]],
        record: Callable[[str, list[Entry]], None],
    ) -> None:
        """Files of one portion are written while the model works on the next; the journals follow them."""

        def refuse(item: Decoded) -> None:
            for label in wanted[item.file.name]:
                record(label, [failed_entry(item, item.reason or "unknown reason")])

        def batch_size() -> int:
            return max(group.batch_size for group in self._groups)

        waiting: deque[tuple[str, list[Future[Entry]]]] = deque()
        threads = min(8, max(2, os.cpu_count() or 2))
        decoded = decode_ahead(
            files,
            max_pixels=self.options.max_pixels,
            workers=max(2, threads // 2),
            max_images=max(4, 2 * batch_size()),
        )
        with closing(decoded), ThreadPoolExecutor(threads, thread_name_prefix="headclip-count") as pool:
            try:
                for batch in readable_batches(decoded, batch_size, refuse):
                    for portion in self._portions(batch, wanted):
                        save, seconds = self.recorders[portion.label].save, portion.seconds
                        futures = [pool.submit(save, item, outcome, seconds) for item, outcome in portion.each()]
                        waiting.append((portion.label, futures))
                        while len(waiting) > _WAITING:
                            _settle(waiting, record)
            finally:  # after an interruption too: what the model has judged is kept
                while waiting:
                    _settle(waiting, record)

    def _portions(self, batch: list[Decoded], wanted: Mapping[str, list[str]]) -> Iterator[_Portion]:
        """What all methods say of a batch. After a resumption some may have judged images of it before."""
        for group in self._groups:
            sets: dict[frozenset[str], list[Decoded]] = {}
            for item in batch:
                labels = frozenset(group.detectors).intersection(wanted[item.file.name])
                if labels:
                    sets.setdefault(labels, []).append(item)
            for labels, items in sets.items():
                yield from self._judge(group, items, labels)

    def _judge(self, group: PassGroup, items: list[Decoded], labels: frozenset[str]) -> Iterator[_Portion]:
        """One pass for several methods; where it fails, method by method and image by image for what is left."""
        left = {label: dict(enumerate(items)) for label in group.detectors if label in labels}
        try:
            arrays = [to_resolution(group.first, _pixels(item), self.options.resolution) for item in items]
            resized = self.options.resolution == "tower"
            for piece in group.pieces(arrays, self._categories(group, items, labels), labels, resized=resized):
                judged = [left[piece.label].pop(index) for index in piece.indices]
                yield _Portion(piece.label, judged, piece.predictions, piece.seconds / len(judged))
            return
        except Exception as error:
            _log.debug("judging %d image(s) by %s failed", len(items), ", ".join(labels), exc_info=True)
            reason = f"the model failed: {type(error).__name__}: {error}"
        for label, rest in left.items():
            missing = list(rest.values())
            if len(labels) > 1 and missing:
                yield from self._judge(group, missing, frozenset([label]))
            elif len(items) > 1:
                for item in missing:
                    yield from self._judge(group, [item], labels)
            elif missing:
                yield _Portion(label, missing, reason)

    def _categories(self, group: PassGroup, items: list[Decoded], labels: frozenset[str]) -> list[str] | None:
        """What each image shows, where a method puts that into words."""
        if not any(group.detectors[label].method.uses_category for label in labels):
            return None
        return [self.records[item.file.name].category or "object" for item in items]


def _settle(waiting: deque[tuple[str, list[Future[Entry]]]], record: Callable[[str, list[Entry]], None]) -> None:
    label, futures = waiting.popleft()
    record(label, [future.result() for future in futures])


def _pixels(item: Decoded) -> Any:
    assert item.pixels is not None
    return item.pixels
