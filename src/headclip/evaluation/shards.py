"""What a shard of an evaluation leaves behind: states of the metrics, a row for every image, and its run folders.

results.json                          the settings, and what the parts are about
parts/DATASET/NUMBER/rows.parquet     a row for every image; NUMBER counts the methods, from 0
parts/DATASET/NUMBER/HASH.npz         the pixel state of one category (HASH stands for its name)
parts/DATASET/NUMBER/maps/            maps of the images that may be among the worst of all
runs/DATASET/[LABEL/]                 the run folder, with the pixel counts of each image for the bootstrap
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headclip.data.levels import quantise
from headclip.data.records import ImageRecord
from headclip.errors import HeadclipError
from headclip.evaluation.checks import PARTS, SHARD_FORMAT
from headclip.evaluation.counts import DAMAGE
from headclip.evaluation.fingerprint import record_line
from headclip.evaluation.judged import JudgedImage, name_images
from headclip.evaluation.outputs import RESULTS, options_json, short_facts, versions
from headclip.evaluation.scoring import Counted, Counter, DatasetResult, count_category
from headclip.evaluation.worst import worst_images
from headclip.files import write_atomically
from headclip.metrics.state import PixelState
from headclip.runs.checks import is_inside, is_text
from headclip.runs.facts import as_facts
from headclip.runs.files import map_file, write_atomic
from headclip.runs.parquet import read_table
from headclip.runs.pictures import encode_map
from headclip.runs.shards import Shard, keep_listing

if TYPE_CHECKING:
    from headclip.evaluation.evaluate import Evaluation

ROWS = "rows.parquet"
_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("status", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
        ("counted", pa.bool_()),
        ("located", pa.float64()),
        ("content", pa.string()),
    ]
)


@dataclass(frozen=True)
class PartRow:
    """One image of a shard.

    name: among the images of the dataset; counted: whether its pixels are in the state of its category; located: pixel
    AUROC within it, None where not defined; content: its line of the dataset's fingerprint.
    """

    name: str
    status: str
    score: float | None
    reason: str | None
    counted: bool
    located: float | None
    content: str


class PartWriter:
    """Writes the parts of one shard of an evaluation. folder: the shard's."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._folder, self._shard = folder, shard
        self._places: dict[tuple[str, str], Path] = {}
        self._datasets: dict[str, dict[str, Any]] = {}
        self._lines: tuple[str, dict[str, str]] = ("", {})

    def counter(self, dataset: str, label: str) -> Counter:
        """A `count_category` that keeps the state of each category."""
        number = sum(known == dataset for known, _ in self._places)
        place = self._places[dataset, label] = part_folder(self._folder, dataset, number)

        def count(category: str, images: Sequence[JudgedImage]) -> Counted:
            counted = count_category(category, images)
            write_atomically(state_file(place, category), _state_bytes(counted.state))
            return counted

        return count

    def keep(
        self,
        result: DatasetResult,
        images: Sequence[JudgedImage],
        records: Sequence[ImageRecord],
        run: Path,
        worst: int,
    ) -> None:
        """Write the rows of a result, and the maps of its worst images.

        images: in the order of the list of all; records: of all shards; run: the run folder; worst: how many of each
        kind.
        """
        every = name_images(records, result.dataset.root)
        place = self._places[result.name, result.method]
        names = [file.name for file in self._shard.of(every)]
        lines = {id(image): name for name, image in zip(names, images, strict=True)}
        rows = [
            PartRow(
                lines[id(image)],
                image.status,
                image.score,
                image.reason,
                image.load is not None,
                result.located.get(image.name),
                self._line(result.name, lines[id(image)], image.record),
            )
            for image in images
        ]
        write_atomically(place / ROWS, _rows_bytes(rows))
        for image in (image for group in worst_images(result, worst).values() for image in group):
            if image.load_map is not None:
                _keep_map(place, lines[id(image)], image)
        about = self._datasets.setdefault(result.name, {"labels": [], "leakage": [], "runs": []})
        place = result.dataset.listing or result.dataset.root
        about |= {"name": result.dataset.name, "root": str(place.absolute())}
        about["listing"] = keep_listing(self._folder.parent, [file.name for file in every])
        about["labels"].append(result.method)
        about["leakage"].append(result.leakage)
        about["runs"].append(run.relative_to(self._folder).as_posix())

    def _line(self, dataset: str, name: str, record: ImageRecord) -> str:
        """The image's line of the fingerprint, which reads its file: once for all methods."""
        if self._lines[0] != dataset:
            self._lines = (dataset, {})
        known = self._lines[1]
        if name not in known:
            known[name] = record_line(record)
        return known[name]

    def finish(self, evaluation: Evaluation) -> None:
        """Mark the shard finished; everything else is in place."""
        content = {
            "format": SHARD_FORMAT,
            "status": "finished",
            "shard": {"index": self._shard.index, "count": self._shard.count},
            "seconds": round(evaluation.seconds, 1),
            "command": evaluation.command,
            "arguments": evaluation.arguments,
            "options": options_json(evaluation.options),
            "versions": versions(),
            "detectors": {result.method: short_facts(result.facts) for result in evaluation.results},
            "datasets": self._datasets,
        }
        write_atomically(self._folder / RESULTS, json.dumps(as_facts(content), indent=2) + "\n")


def part_folder(folder: Path, dataset: str, number: int) -> Path:
    """Where a shard keeps what it says of a dataset by the method `number`."""
    return folder / PARTS / dataset / str(number)


def state_file(place: Path, category: str) -> Path:
    """The state of a category, whose name may hold anything."""
    return place / f"{hashlib.sha256(category.encode()).hexdigest()[:16]}.npz"


def _keep_map(place: Path, name: str, image: JudgedImage) -> None:
    assert image.load_map is not None
    try:
        found = image.load_map()
    except HeadclipError:  # the page says that there is none
        return
    write_atomic(place, map_file(name), encode_map(quantise(found)))


def _state_bytes(state: PixelState) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **state.to_arrays())  # type: ignore[arg-type]
    return buffer.getvalue()


def read_state(path: Path) -> PixelState:
    """What `PartWriter` wrote.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        with np.load(path) as content:
            return PixelState.from_arrays({name: content[name] for name in content.files})
    except (*DAMAGE, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"the state {path.name}: {error}") from None


def _rows_bytes(rows: Sequence[PartRow]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=_SCHEMA), sink)
    return sink.getvalue()


def read_rows(path: Path) -> list[PartRow]:
    """What `PartWriter` wrote.

    Raises:
        ValueError: it is missing or damaged.
    """
    try:
        rows = [PartRow(**line) for line in read_table(path, _SCHEMA).to_pylist()]
        if any(not _is_sound(row) for row in rows):
            raise ValueError("a row lacks its name, its status, its score or its hash")
        return rows
    except (*DAMAGE, pa.ArrowException) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _is_sound(row: PartRow) -> bool:
    numbers = [value for value in (row.score, row.located) if value is not None]
    if not (is_text(row.name) and is_text(row.content) and row.status in ("ok", "failed", "unlabelled")):
        return False
    if not is_inside(row.name) or row.counted is None or (row.status == "ok" and row.score is None):
        return False
    return all(np.isfinite(numbers)) and (row.reason is None or is_text(row.reason))
