"""What is checked before images are judged: names, the folder for the results, images seen in training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headclip.data.datasets import Dataset
from headclip.data.decode import decode
from headclip.data.hashing import TrainingHashes, leakage, pixel_hash
from headclip.errors import ImageError, InputError
from headclip.evaluation.judged import dataset_key
from headclip.evaluation.outputs import FIGURES, FILES, FORMAT, RESULTS
from headclip.files import load_json, results_in, write_atomically
from headclip.runs.facts import as_facts
from headclip.runs.shards import MERGED

if TYPE_CHECKING:
    from headclip.evaluation.evaluate import Options

RUNS, PARTS = "runs", "parts"
SHARD_FORMAT = "headclip-evaluation-shard"
Progress = Callable[[str, int, int, int], None]
"""Called with what is being done, how much of it is done, of how much, and how many images failed."""


def label_folders(labels: Iterable[str]) -> dict[str, str]:
    """A folder name for each label, of characters that every file system takes.

    Raises:
        InputError: no label, an empty one, or two that would share a folder.
    """
    folders = {label: re.sub(r"[^\w.+=-]+", "-", label).strip("-.") for label in labels}
    wrong = [label for label, folder in folders.items() if not folder]
    if wrong or not folders:
        raise InputError(
            "every method needs a name with letters or digits" if wrong else "no method; name at least one"
        )
    lower = [folder.casefold() for folder in folders.values()]
    twice = sorted(label for label, folder in folders.items() if lower.count(folder.casefold()) > 1)
    if twice:
        raise InputError(f"{' and '.join(twice)} would share a folder; give them names that differ in more than signs")
    return folders


def unique_names(datasets: Sequence[Dataset]) -> list[str]:
    """A folder name for each dataset; own data goes by the name of its folder.

    Raises:
        InputError: two would share one.
    """
    known: dict[str, Dataset] = {}
    for dataset in datasets:
        label = dataset_key(dataset)
        first = known.setdefault(label, dataset)
        if first is dataset:
            continue
        if dataset.info.domain != "any" or first.root.resolve() == dataset.root.resolve():
            raise InputError(f"{label} is given twice; evaluate the copies one by one")
        raise InputError(
            f"{first.root} and {dataset.root} would both be called {label}, since data of one's own go by the name of "
            "their folder or list; rename one of them, or evaluate them one by one"
        )
    return list(known)


def check_out(out: Path, options: Options) -> None:
    """Whether the evaluation may be written to `out`.

    Raises:
        InputError: `out` is a file, holds something else, or holds an evaluation and neither `resume` nor
            `overwrite` is given.
    """
    if options.resume and options.overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one of them")
    mark, kind, folder = FORMAT, "evaluation", out
    if options.shard is not None:
        check_no_whole(out)
        mark, kind, folder = SHARD_FORMAT, "shard of an evaluation", options.place(out)
    found = results_in(folder, RESULTS, mark, kind)
    if found is None:
        return
    if not (options.resume or options.overwrite):
        state = "a finished" if found.get("status") == "finished" else "an unfinished"
        raise InputError(
            f"{folder} already holds {state} {kind}; add --resume to go on with it, --overwrite to replace it, "
            "or choose another folder"
        )


def check_no_whole(out: Path) -> None:
    """Whether shards may be put into `out`: not into an evaluation that was made at once.

    Raises:
        InputError: there is such an evaluation.
    """
    try:
        found = load_json(out / RESULTS)
    except (OSError, ValueError):
        return
    if isinstance(found, dict) and MERGED not in found:
        raise InputError(f"{out} already holds an evaluation that was made without shards; choose another folder")


def start(out: Path, command: str, options: Options, **extra: Any) -> None:
    """Mark the folder as ours, so that a kill leaves one that can be resumed; with `overwrite`, empty it before.

    What a finished one says is left alone until there is something to take its place: resuming may yet be refused.
    """
    mark = FORMAT if options.shard is None else SHARD_FORMAT
    if options.resume and finished_results(out, mark) is not None:
        return
    about = {"format": mark, "status": "running", "command": command, **extra}
    write_atomically(out / RESULTS, json.dumps(as_facts(about)) + "\n")
    if options.overwrite:
        for name in FILES:
            (out / name).unlink(missing_ok=True)
        for name in (RUNS, FIGURES, PARTS):
            shutil.rmtree(out / name, ignore_errors=True)


def finished_results(out: Path, mark: str = FORMAT) -> dict[str, Any] | None:
    """What results.json of a finished evaluation (or shard, by its mark) says; None where there is none."""
    try:
        found = load_json(out / RESULTS)
    except (OSError, ValueError):
        return None
    is_ours = isinstance(found, dict) and (found.get("format"), found.get("status")) == (mark, "finished")
    return found if is_ours else None


def check_leakage(facts: Mapping[str, Any], dataset: Dataset, progress: Progress) -> str:
    """What a detector (or a run's settings) has seen of a dataset, in one line, or "": images of its training set, or
    reference images of its few-shot variant."""
    training = TrainingHashes.from_metadata(facts.get("checkpoint_data") or {})
    title = f"comparing {dataset.info.title} with the training images"
    has_hashes = bool(training.files or training.looks)

    def show(done: int) -> None:
        if has_hashes:
            progress(title, done, len(dataset), 0)

    learnt = leakage(training, dataset_key(dataset), dataset.records, progress=show).sentence()
    return "; ".join(found for found in (learnt, _shared_references(facts, dataset, progress)) if found)


def _shared_references(facts: Mapping[str, Any], dataset: Dataset, progress: Progress) -> str:
    """Which of a detector's reference images are in a dataset: such an image is compared with itself.

    References are known by their pixels, so every image is decoded; only for a detector that has some.
    """
    wanted = {str(value) for value in facts.get("references") or ()}
    found: dict[str, Path] = {}
    for done, record in enumerate(dataset.records if wanted else (), start=1):
        try:
            value = pixel_hash(decode(record.path))
        except ImageError:  # scoring reports it
            value = ""
        if value in wanted:
            found.setdefault(value, record.path)
        progress(f"comparing {dataset.info.title} with the reference images", done, len(dataset), 0)
    if not found:
        return ""
    first = dataset.relative(next(iter(found.values())))
    return f"{dataset_key(dataset)} holds {len(found)} of the {len(wanted)} reference image(s), e.g. {first}"


def refuse_leakage(shared: Iterable[str], options: Options) -> None:
    """Raise InputError where something is shared and that has not been allowed."""
    found = [sentence for sentence in shared if sentence]
    if found and not options.allow_leakage:
        raise InputError(
            f"{'; '.join(found)}. Figures on images seen in training mean nothing, nor do those on reference images: "
            "use another checkpoint, other references or another dataset, or --allow-leakage, which marks every table"
        )


def check_every_leakage(
    facts: Mapping[str, Mapping[str, Any]], datasets: Sequence[Dataset], progress: Progress
) -> dict[tuple[str, str], str]:
    """What each detector has seen of each dataset; equal training sets and references are compared once."""
    found: dict[tuple[str, str], str] = {}
    known: dict[tuple[str, str], str] = {}
    for label, about in facts.items():
        seen = json.dumps([about.get("checkpoint_data") or {}, about.get("references") or []], sort_keys=True)
        for dataset in datasets:
            key = dataset_key(dataset)
            if (key, seen) not in known:
                known[key, seen] = check_leakage(about, dataset, progress)
            found[key, label] = known[key, seen]
    return found


def refuse_tested_images(
    data: Mapping[str, Any], datasets: Sequence[Dataset], options: Options, progress: Progress
) -> None:
    """Compare test sets with what is to be trained on, before hours of training and not after them.

    Args:
        data: what the checkpoint will say of its images, as `TrainingSet.describe` does.

    Raises:
        InputError: they share images, and that has not been allowed.
    """
    shared = check_every_leakage({"": {"checkpoint_data": data}}, datasets, progress)
    refuse_leakage(shared.values(), options)
