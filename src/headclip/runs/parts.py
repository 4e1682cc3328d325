"""The parts that shards leave behind: finding them, and whether together they are a whole."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headclip.errors import InputError
from headclip.runs.facts import changed_settings
from headclip.runs.files import JOURNAL, SHARDS, RunFolderError
from headclip.runs.run import read_facts, read_journal
from headclip.runs.shards import Shard, read_listing, share_of

_NAMED = 5  # of what is missing, in messages
_NEEDED = ("created", "timing", "settings")  # of run.json, to merge it


@dataclass(frozen=True)
class Part:
    """One shard's run folder, with its run.json."""

    folder: Path
    shard: Shard
    facts: dict[str, Any]

    @property
    def listing(self) -> str:
        """The hash of the names of all images, as this shard saw them."""
        return str(self.facts["shard"]["listing"])


def owner(parts: Sequence[Part], name: str) -> Part:
    """The part to which an image belongs; parts: all of them, in order."""
    return parts[share_of(name, len(parts)) - 1]


def part_folders(paths: Sequence[str | Path]) -> list[Path]:
    """The folders of shards: those named, and those in the shards/ of those named.

    Raises:
        RunFolderError: nothing is named, or a folder is neither.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        inside = path / SHARDS
        if inside.is_dir():
            found |= dict.fromkeys(child.resolve() for child in sorted(inside.iterdir()) if child.is_dir())
        elif path.is_dir() and not path.name.startswith("."):
            found[path.resolve()] = None
        else:
            raise RunFolderError(f"{path} is no folder; name a run with {SHARDS}/ in it, or the folders of its shards")
    if not found:
        raise RunFolderError(f"no shards to merge; name a run with {SHARDS}/ in it, or the folders of its shards")
    return list(found)


def home(folders: Sequence[Path]) -> Path:
    """Where the whole goes if nothing is said: the folder whose shards/ hold all parts.

    Raises:
        RunFolderError: they lie in several places.
    """
    places = {folder.parent for folder in folders}
    if len(places) > 1 or next(iter(places)).name != SHARDS:
        raise RunFolderError("the shards do not lie in one run folder; say with --out where the whole run shall go")
    return places.pop().parent


def open_part(folder: Path) -> Part:
    """What a folder says of its shard.

    Raises:
        RunFolderError: it holds no shard of headclip predict.
        InputError: its run.json cannot be read.
    """
    facts = read_facts(folder)
    if facts is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError, InputError):
            shard = Shard.from_facts(facts["shard"])
            if not is_digest(facts["shard"]["listing"]) or not all(facts[name] for name in _NEEDED):
                raise RunFolderError(f"the run.json of {folder} is damaged; run the shard again with --overwrite")
            return Part(folder, shard, facts)
    held = "a run, but no shard of one" if facts is not None else "no shard"
    raise RunFolderError(
        f"{folder} holds {held}; `headclip predict --shard i/n` and `headclip evaluate --shard i/n` make them"
    )


def check_parts(parts: Sequence[Part]) -> list[Part]:
    """All shards of one run, finished, in order.

    Raises:
        RunFolderError: as `merge_runs`.
    """
    ordered = check_division([(part.shard, part.folder) for part in parts])
    by_folder = {part.folder: part for part in parts}
    complete = [by_folder[folder] for folder in ordered]
    first = complete[0]
    for part in complete:
        if part.facts["status"] != "finished":
            done, total = _progress_of(part)
            raise RunFolderError(
                f"shard {part.shard} in {part.folder} is not finished ({done:,} of {total:,} images); "
                "run it again with --resume"
            )
        changed = changed_settings(first.facts["settings"], part.facts["settings"])
        if changed:
            key, there, here = changed[0]
            raise RunFolderError(
                f"shards {first.shard} and {part.shard} were judged with different settings ({key}: {there!r} and "
                f"{here!r}); run one of them again with the other's"
            )
        if criteria_of(part) != criteria_of(first):
            raise RunFolderError(
                f"shards {first.shard} and {part.shard} were judged by different thresholds; run one of them again "
                "with --resume and the other's --calibration or --threshold"
            )
    check_listings([(part.shard, part.folder.parent, part.listing) for part in complete])
    return complete


def check_division(found: Sequence[tuple[Shard, Path]]) -> list[Path]:
    """The folders of the shards 1 to n, in order.

    Raises:
        RunFolderError: a shard is missing or given twice, or they are of different divisions.
    """
    counts = sorted({shard.count for shard, _ in found})
    if len(counts) > 1:
        text = " and ".join(map(str, counts))
        raise RunFolderError(
            f"these are shards of divisions by {text}; name the folders of one of them, or delete others"
        )
    by_index: dict[int, Path] = {}
    for shard, folder in found:
        if shard.index in by_index:
            raise RunFolderError(f"shard {shard} is there twice, in {by_index[shard.index]} and {folder}; name one")
        by_index[shard.index] = folder
    missing = [f"{index}/{counts[0]}" for index in range(1, counts[0] + 1) if index not in by_index]
    if missing:
        raise RunFolderError(
            f"{len(missing)} of {counts[0]} shards are missing: {some(missing)}; run them, or name their folders too"
        )
    return [by_index[index] for index in sorted(by_index)]


def check_listings(found: Sequence[tuple[Shard, Path, str]]) -> list[str]:
    """The names of all images, on which all shards agree. found: shard, folder of its list, hash of its list.

    Raises:
        RunFolderError: they saw different images; names some.
    """
    first, folder, digest = found[0]
    names = read_listing(folder, digest)
    for shard, place, other in found[1:]:
        if other == digest:
            continue
        others = read_listing(place, other)
        both = set(names) & set(others)
        more, less = [n for n in others if n not in both], [n for n in names if n not in both]
        parts = [f"{len(more):,} that {first} did not see ({some(more)})"] if more else []
        parts += [f"not {len(less):,} that {first} saw ({some(less)})"] if less else []
        raise RunFolderError(
            f"the images have changed between the shards: {shard} saw {' and '.join(parts) or 'another order'}; "
            "run every shard again with --resume, which judges only what is new"
        )
    return names


def some(names: Sequence[str]) -> str:
    """A few of many names."""
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _progress_of(part: Part) -> tuple[int, int]:
    try:
        names = [name for name in read_listing(part.folder.parent, part.listing) if part.shard.holds(name)]
    except RunFolderError:
        return len(read_journal(part.folder / JOURNAL)[0]), 0
    known = read_journal(part.folder / JOURNAL)[0]
    return sum(name in known for name in names), len(names)


def is_digest(value: Any) -> bool:
    """Whether it is a SHA-256 in hexadecimal digits, as lists of images are named by."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def criteria_of(part: Part) -> Any:
    """The thresholds by which a shard was judged, as run.json has them; None without any."""
    return (part.facts.get("judgement") or {}).get("criteria")
