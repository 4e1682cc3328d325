"""What is left to do of a run: files whose content has not been judged, wherever they lie now and are called now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from headclip.data.discover import ImageFile, ImageSet
from headclip.runs.facts import changed_settings
from headclip.runs.files import JOURNAL, RunFolderError, map_file, mask_file, overlay_file, preview_file, take_file
from headclip.runs.overlay import LevelHistogram
from headclip.runs.render import count_sound, in_threads
from headclip.runs.run import Entry, Row, read_facts, read_journal
from headclip.runs.shards import Shard
from headclip.runs.writer import RunWriter

T = TypeVar("T")
Donors = dict[str, tuple[Path, Entry]]
"""SHA-256 of a judged file to the run folder that has its map, and the entry there."""


def find_work(
    writer: RunWriter,
    images: ImageSet,
    every: ImageSet,
    histogram: LevelHistogram,
    earlier: Mapping[str, Any] | None,
    *,
    renamed: bool = True,
) -> list[ImageFile]:
    """The images without a sound result on record; the maps of the others go into `histogram`.

    A file that has been judged under a name that no image has any more keeps its result under its new name, also
    where that belongs to another shard of the run.

    Args:
        images: of this run or shard; every: of all shards.
        earlier: run.json as it was when the run was to be resumed, {} without one; None for a run from the start.
        renamed: whether results do not depend on names, so that a renamed file may keep its own.

    Raises:
        RunFolderError: the run folder cannot be written.
    """
    done = set()
    _forget_taken_apart(writer, every)
    if writer.entries:
        done = {file.name for file, known in zip(images, _each(writer.is_done, images), strict=True) if known}
    missing = [file for file in images if file.name not in done]
    if renamed:
        done |= _keep_renamed(writer, missing, every, earlier)
    todo = {file.name for file in missing} - done
    kept = [row for row in writer.rows() if row.status == "ok" and row.path not in todo]
    damaged = {row.path for row in count_sound(writer.folder, kept, histogram)}
    beyond = damaged - {image.name for image in images}  # of an earlier call with other inputs
    reason = "its files in the run folder are damaged; judge it again with --resume"
    writer.append([Entry(Row(name, "failed", reason=reason), 0, 0) for name in sorted(beyond)])
    return [image for image in images if image.name in todo or image.name in damaged]


def _keep_renamed(
    writer: RunWriter, missing: Sequence[ImageFile], every: ImageSet, earlier: Mapping[str, Any] | None
) -> set[str]:
    """Give files without a result that of the same content under an old name; return the names of those files."""
    names = {file.name for file in every}
    old: dict[str, list[Entry]] = {}  # by content: there may have been copies
    for name, entry in writer.entries.items():
        if entry.sha256 is not None and name not in names and not os.path.lexists(every.root / name):
            old.setdefault(entry.sha256, []).append(entry)
    donors = _of_other_shards(writer, names, earlier) if missing else {}
    donors |= {digest: (writer.folder, _best(entries)) for digest, entries in old.items()}
    if not donors:
        return set()
    hashes = dict(zip((file.name for file in missing), _each(lambda file: file.content(), missing), strict=True))
    taken = set()
    for file in missing:
        donor = donors.get(hashes[file.name] or "")
        if donor is not None and donor[1].row.status == "ok" and _take(writer, file, *donor):
            taken.add(file.name)
    if "shard" not in writer.facts:  # other shards may still need what this one has on record
        present = {digest for digest in hashes.values() if digest}
        present |= {entry.sha256 for name, entry in writer.entries.items() if name in names and entry.sha256}
        _forget(writer, [entry.row for digest, entries in old.items() if digest in present for entry in entries])
    return taken


def _forget_taken_apart(writer: RunWriter, every: ImageSet) -> None:
    """Forget a file that is now judged page by page or slice by slice: it was refused, or judged by its first page."""
    whole = {file.name.rpartition("/")[0] for file in every}
    _forget(writer, [entry.row for name, entry in writer.entries.items() if name in whole])


def _best(entries: Sequence[Entry]) -> Entry:
    """Of the records of equal files the last that is a result, if any is."""
    return next((entry for entry in reversed(entries) if entry.row.status == "ok"), entries[-1])


def _take(writer: RunWriter, file: ImageFile, folder: Path, entry: Entry) -> bool:
    """Put a result of another name, or of another run folder, on record for `file`."""
    try:
        size, mtime_ns = file.state()
        for place in (map_file, preview_file):
            take_file(folder / place(entry.row.path), writer.folder, place(file.name))
    except (OSError, RunFolderError):
        return False
    row = replace(entry.row, path=file.name, map=map_file(file.name))
    writer.append([Entry(row, size, mtime_ns, entry.sha256)])
    return True


def _forget(writer: RunWriter, rows: Sequence[Row]) -> None:
    """Take rows off the record, and then their files away."""
    writer.drop(row.path for row in rows)
    for row in rows:
        for place in (map_file, preview_file, overlay_file, mask_file):
            with contextlib.suppress(OSError):
                (writer.folder / place(row.path)).unlink(missing_ok=True)


def _of_other_shards(writer: RunWriter, names: set[str], earlier: Mapping[str, Any] | None) -> Donors:
    """What other shards of the run have judged and do not need: files of names that are gone, and other divisions.

    Read only where there may be such: the list of images has changed since, or the run was divided otherwise.
    """
    facts = writer.facts
    if "shard" not in facts or earlier is None:
        return {}
    own = Shard.from_facts(facts["shard"])
    changed = bool(earlier) and earlier["shard"]["listing"] != facts["shard"]["listing"]
    donors: Donors = {}
    for folder, other in shard_folders(writer.folder.parent):
        divided_otherwise = Shard.from_facts(other["shard"]).count != own.count
        if folder == writer.folder or not (changed or divided_otherwise):
            continue
        if other["root"] != facts["root"] or changed_settings(other["settings"], facts["settings"]):
            continue
        for entry in read_journal(folder / JOURNAL)[0].values():
            if entry.sha256 is not None and (divided_otherwise or entry.row.path not in names):
                donors[entry.sha256] = (folder, entry)
    return donors


def shard_folders(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The run folders of shards in `folder`, with run.json of each."""
    found = ((child, read_facts(child)) for child in sorted(folder.iterdir()) if child.is_dir())
    return [(child, facts) for child, facts in found if facts is not None and "shard" in facts]


def _each(function: Callable[[ImageFile], T], files: Iterable[ImageFile]) -> Iterator[T]:
    """A function of each file, in order, in a few threads, with few results waiting."""
    return in_threads(function, list(files))
