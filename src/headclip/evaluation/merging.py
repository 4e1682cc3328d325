"""Joining the shards of an evaluation: states are merged, rows joined, and every table made as a single process would.

Figures come from the merged states, bit for bit those of one pass over all maps. The pixel bootstrap draws images, so
it reads the counts of each image where the shards have them; where they have gone, pixel figures have no intervals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headclip.data.datasets import Dataset, open_dataset, open_spec
from headclip.data.discover import ImageSet, stored_path
from headclip.data.records import ImageRecord
from headclip.errors import InputError
from headclip.evaluation.checks import SHARD_FORMAT, Progress, check_no_whole, start
from headclip.evaluation.counts import merge_all, read_counts
from headclip.evaluation.evaluate import Evaluation, scoring_progress
from headclip.evaluation.fingerprint import fingerprint_of, truth_line
from headclip.evaluation.judged import JudgedImage, choose, dataset_key, name_images
from headclip.evaluation.judging import RUN_PAGE
from headclip.evaluation.outputs import FORMAT, RESULTS, write_outputs
from headclip.evaluation.part_checks import part_fault, read_options
from headclip.evaluation.recording import counts_file
from headclip.evaluation.scoring import Counted, Counter, DatasetResult, score_dataset
from headclip.evaluation.shards import ROWS, PartRow, part_folder, read_rows, read_state, state_file
from headclip.files import load_json, results_in
from headclip.metrics.state import PixelState
from headclip.runs.facts import changed_settings
from headclip.runs.files import JOURNAL, RUN_JSON, SHARDS, RunFolderError, map_file, take_file
from headclip.runs.parts import check_division, check_listings, home, part_folders, some
from headclip.runs.pictures import read_map
from headclip.runs.run import Entry, read_facts, read_journal
from headclip.runs.shards import MERGED, Shard, listing_hash, share_of
from headclip.runs.writer import RunWriter


@dataclass(frozen=True)
class EvaluationPart:
    """One shard's folder, with its results.json."""

    folder: Path
    shard: Shard
    facts: dict[str, Any]


def is_evaluation_part(folder: Path) -> bool:
    """Whether a folder holds a shard of `headclip evaluate`, finished or not."""
    return _read(folder) is not None


def merge_evaluations(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    data: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = lambda stage, done, total, failed: None,
) -> Evaluation:
    """Join the shards of an evaluation, and write every table of the whole; may be done again at any time.

    Args:
        paths: folders with shards/ in them, or the folders of shards.
        out: where the whole goes; None puts it where the shards are, if that is one place.
        data: NAME=PATH of each dataset, where it lies elsewhere than the shards saw it.
        overwrite: replace another evaluation that is in `out`.

    Raises:
        RunFolderError: a shard is missing, unfinished, damaged, of other settings or other images, or given twice; an
            image has no row. Each says which and what to do.
        InputError: `out` holds something else; a dataset has changed since.
    """
    parts = check_evaluations(part_folders(paths))
    target = Path(out) if out is not None else home([part.folder for part in parts])
    _check_target(target, overwrite)
    first = parts[0].facts
    options = replace(read_options(first["options"]), overwrite=overwrite)
    extra = {MERGED: {"shards": len(parts)}}
    evaluation = Evaluation(target, options, [], first["arguments"], first["command"], extra=extra)
    evaluation.seconds = sum(part.facts["seconds"] for part in parts)
    datasets = _datasets(first["datasets"], data)
    start(target, evaluation.command, options, **extra)
    for key, about in first["datasets"].items():
        records = choose(datasets[key], options.limit)
        names = name_images(records, datasets[key].root)
        _check_names(datasets[key], names, about)
        truths = {file.name: truth_line(record) for record, file in zip(records, names, strict=True)}
        for number in range(len(about["labels"])):
            source = _Source(parts, key, number, datasets[key], records, names, truths)
            evaluation.results.append(source.result(evaluation, progress))
            source.join_run(target)
    write_outputs(evaluation, progress)
    return evaluation


class _Source:
    """What all parts say of one dataset by one method."""

    def __init__(
        self,
        parts: Sequence[EvaluationPart],
        key: str,
        number: int,
        dataset: Dataset,
        records: Sequence[ImageRecord],
        names: ImageSet,
        truths: Mapping[str, str],
    ) -> None:
        about = parts[0].facts["datasets"][key]
        self._parts, self._dataset, self._records, self._names = parts, dataset, records, names
        self._label, self._leakage = str(about["labels"][number]), str(about["leakage"][number])
        self._run = str(about["runs"][number])
        self._places = [part_folder(part.folder, key, number) for part in parts]
        self._rows = self._read_rows(truths)

    def _read_rows(self, truths: Mapping[str, str]) -> dict[str, PartRow]:
        """The one row of every image. truths: the `truth_line` of each, which must be that of the row."""
        rows: dict[str, PartRow] = {}
        for part, place in zip(self._parts, self._places, strict=True):
            try:
                rows |= {row.name: row for row in read_rows(place / ROWS)}
            except ValueError as error:
                raise _damaged(part, error) from None
        missing = [file.name for file in self._names if file.name not in rows]
        if missing:
            raise RunFolderError(
                f"{len(missing):,} image(s) of {self._dataset.info.title} have no row in any shard ({some(missing)}); "
                "run the shards again with --resume"
            )
        changed = [name for name, truth in truths.items() if rows[name].content.partition(" ")[2] != truth]
        if changed:
            raise InputError(
                f"{len(changed):,} image(s) of {self._dataset.info.title} have another label or mask than when the "
                f"shards judged them ({some(changed)}); run the shards again with --resume"
            )
        return rows

    def _owner(self, name: str) -> int:
        return share_of(name, len(self._parts)) - 1

    def result(self, evaluation: Evaluation, progress: Progress) -> DatasetResult:
        """Figures, from the merged states."""
        images = [self._image(record, file.name) for record, file in zip(self._records, self._names, strict=True)]
        lost = [name for name, row in self._rows.items() if row.counted and not self._counts(name).is_file()]
        scoring = replace(evaluation.options.scoring, pixel_intervals=not lost)
        note = "pixel figures have no intervals: the counts of single images were not kept with the shards"
        return score_dataset(
            self._dataset,
            images,
            self._label,
            self._parts[0].facts["detectors"][self._label],
            scoring,
            leakage=self._leakage,
            limit=evaluation.options.limit,
            extra_notes=[note] if lost and scoring.replicates else [],
            progress=scoring_progress(progress, self._dataset, self._label),
            count=self._counter(),
            fingerprint=fingerprint_of(self._rows[file.name].content for file in self._names),
        )

    def _image(self, record: ImageRecord, name: str) -> JudgedImage:
        row = self._rows[name]
        kept = self._place(name) / map_file(name)
        if not kept.is_file():
            kept = self._run_of(name) / map_file(name)
        return JudgedImage(
            record,
            self._dataset.relative(record.path),
            row.status,  # type: ignore[arg-type]
            row.score,
            row.reason,
            partial(read_counts, self._counts(name)) if row.counted else None,
            partial(read_map, kept) if kept.is_file() else None,
        )

    def _place(self, name: str) -> Path:
        return self._places[self._owner(name)]

    def _run_of(self, name: str) -> Path:
        return self._parts[self._owner(name)].folder / self._run

    def _counts(self, name: str) -> Path:
        return self._run_of(name) / counts_file(name)

    def _counter(self) -> Counter:
        """A `count_category` that merges the states of the parts instead of reading every image."""
        located = {
            self._dataset.relative(record.path): self._rows[file.name].located
            for record, file in zip(self._records, self._names, strict=True)
        }

        def count(category: str, images: Sequence[JudgedImage]) -> Counted:
            state = merge_all(self._states(category))
            if state.images != len(images):
                raise RunFolderError(
                    f"the shards' states of {category} hold {state.images:,} images, their rows {len(images):,}; "
                    "run the shards again with --resume"
                )
            found = {image.name: located[image.name] for image in images}
            return Counted(state, {name: value for name, value in found.items() if value is not None})

        return count

    def _states(self, category: str) -> Iterator[PixelState]:
        for part, place in zip(self._parts, self._places, strict=True):
            path = state_file(place, category)
            if path.is_file():  # else the shard has no image of it
                try:
                    yield read_state(path)
                except ValueError as error:
                    raise _damaged(part, error) from None

    def join_run(self, target: Path) -> None:
        """The run folder of the whole, as `headclip evaluate` leaves it."""
        runs = [part.folder / self._run for part in self._parts]
        facts = read_facts(runs[0])
        if facts is None:
            raise _damaged(self._parts[0], f"{self._run}/{RUN_JSON} is missing")
        entries: dict[str, Entry] = {}
        for run in runs:
            entries |= read_journal(run / JOURNAL)[0]
        place = target / self._run
        resume = read_facts(place) is not None
        with RunWriter(place, self._names, facts["settings"], arguments=facts["arguments"], resume=resume) as writer:
            wanted = [entries[file.name] for file in self._names if file.name in entries]
            writer.drop([name for name in writer.entries if name not in entries])
            for entry in wanted:
                if entry.row.map is not None:
                    take_file(self._run_of(entry.row.path) / entry.row.map, place, entry.row.map)
            writer.append([entry for entry in wanted if writer.entries.get(entry.row.path) != entry])
            writer.finish(RUN_PAGE, {"dataset": self._dataset.name, "label": self._label})


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        found = load_json(folder / RESULTS)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == SHARD_FORMAT else None


def _open(folder: Path) -> EvaluationPart:
    facts = _read(folder)
    if facts is None:
        raise RunFolderError(f"{folder} holds no shard of an evaluation; `headclip evaluate --shard i/n` makes them")
    fault = part_fault(facts)
    if not fault:
        try:
            return EvaluationPart(folder, Shard.from_facts(facts["shard"]), facts)
        except (KeyError, TypeError, ValueError, InputError) as error:
            fault = f"its shard is none: {error}"
    raise RunFolderError(f"{folder / RESULTS} is damaged ({fault}); run the shard again with --resume")


def check_evaluations(folders: Sequence[Path]) -> list[EvaluationPart]:
    """All shards of one evaluation, finished, in order.

    Raises:
        RunFolderError: as `merge_evaluations`.
    """
    by_folder = {folder: _open(folder) for folder in folders}
    parts = [by_folder[folder] for folder in check_division([(p.shard, p.folder) for p in by_folder.values()])]
    for part in parts:
        if part.facts["status"] != "finished":
            raise RunFolderError(f"shard {part.shard} in {part.folder} is not finished; run it again with --resume")
    first = parts[0].facts
    for part in parts[1:]:
        for name in ("options", "detectors"):
            changed = changed_settings({name: first[name]}, {name: part.facts[name]})
            if changed:
                key, there, here = changed[0]
                raise RunFolderError(
                    f"shards {parts[0].shard} and {part.shard} were made with different settings ({key}: {there!r} and "
                    f"{here!r}); run one of them again with the other's"
                )
        if list(first["datasets"]) != list(part.facts["datasets"]):
            raise RunFolderError(f"shards {parts[0].shard} and {part.shard} judged different datasets; run one again")
    for key in first["datasets"]:
        check_listings([(p.shard, p.folder.parent, p.facts["datasets"][key]["listing"]) for p in parts])
    return parts


def _check_target(target: Path, overwrite: bool) -> None:
    """Whether the whole may be written to a folder: a new one, that of the shards, or that of an earlier merge."""
    if not overwrite:
        check_no_whole(target)
    if target.is_dir() and any(child.name != SHARDS and not child.name.startswith(".") for child in target.iterdir()):
        results_in(target, RESULTS, FORMAT, "evaluation")


def _datasets(about: Mapping[str, Mapping[str, Any]], data: Sequence[str]) -> dict[str, Dataset]:
    """The datasets of the shards, opened where they are said to be, else where the shards saw them."""
    given = {dataset_key(dataset): dataset for dataset in map(open_spec, data)}
    strange = [key for key in given if key not in about]
    if strange:
        raise InputError(
            f"the shards did not judge {', '.join(strange)}; they judged {', '.join(about)} (own data goes by the name "
            "of its folder)"
        )
    return {
        key: given.get(key) or open_dataset(entry["name"], stored_path(entry["root"])) for key, entry in about.items()
    }


def _check_names(dataset: Dataset, names: ImageSet, about: Mapping[str, Any]) -> None:
    if listing_hash([file.name for file in names]) != about["listing"]:
        raise InputError(
            f"the images of {dataset.info.title} in {dataset.root} are not those that the shards judged; run every "
            "shard again with --resume, or say with --data NAME=PATH where the dataset is"
        )


def _damaged(part: EvaluationPart, error: object) -> RunFolderError:
    return RunFolderError(f"shard {part.shard} in {part.folder} is damaged ({error}); run it again with --resume")
