"""A run: what is known about a folder of judged images, read from its run folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headclip.csv_text import CsvText
from headclip.data.discover import printable, stored_path
from headclip.data.run_folder import FORMAT as FORMAT
from headclip.data.run_folder import is_run_folder as is_run_folder
from headclip.data.run_folder import read_facts as read_facts
from headclip.files import parse_json
from headclip.judgement.regions import Region
from headclip.judgement.verdicts import Criteria
from headclip.runs.checks import MAX_TABLE, row_fault
from headclip.runs.commit import settle
from headclip.runs.facts import FORMAT_VERSION
from headclip.runs.files import (
    JOURNAL,
    PARQUET_TABLE,
    REPORT,
    RUN_JSON,
    RunFolderError,
    mask_file,
    overlay_file,
    preview_file,
)
from headclip.runs.pictures import read_map
from headclip.runs.records import read_labels, read_regions

_GONE = "gone"
Status = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a run.

    path: name relative to the run's root; reason: why it failed, else None; score, global_score, local_score: in
    [0, 1]; height, width: pixels of the image; map: map file relative to the run folder; seconds: time in the
    model (a batch's time shared equally); peak: highest value of the map. A failed image has only path, status and
    reason.

    verdict, regions: what judging adds: "ok", "review" or "defect", and the number of regions; None where no
    threshold has been applied.
    """

    path: str
    status: Status
    reason: str | None = None
    score: float | None = None
    height: int | None = None
    width: int | None = None
    global_score: float | None = None
    local_score: float | None = None
    map: str | None = None
    seconds: float | None = None
    peak: float | None = None
    verdict: str | None = None
    regions: int | None = None


COLUMNS = tuple(field.name for field in fields(Row))
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("score", pa.float64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("global_score", pa.float64()),
        ("local_score", pa.float64()),
        ("map", pa.string()),
        ("seconds", pa.float64()),
        ("peak", pa.float64()),
        ("verdict", pa.string()),
        ("regions", pa.int32()),
    ]
)


def row_schema() -> pa.Schema:
    """The columns of results.parquet."""
    return _SCHEMA


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the journal: a row, and the size (bytes), time (ns) and SHA-256 (hex) of the file it speaks of.

    sha256: None where the file could not be read, and in journals of older versions.
    """

    row: Row
    size: int
    mtime_ns: int
    sha256: str | None = None


@dataclass(frozen=True)
class Run:
    """The content of a run folder. rows: in the order of the inputs; facts: run.json."""

    folder: Path
    rows: tuple[Row, ...]
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Read a run, also an unfinished or killed one, whose rows are those judged until then.

        Raises:
            RunFolderError: the folder holds no run, or a run of a newer format.
            InputError: its run.json cannot be read.
        """
        folder = Path(folder)
        settle(folder)
        facts = read_facts(folder)
        if facts is None:
            if (folder / RUN_JSON).is_file():
                raise RunFolderError(f"{folder / RUN_JSON} is damaged, or no run's; name a folder of headclip predict")
            raise RunFolderError(f"{folder} holds no run (no readable {RUN_JSON}); name a folder of headclip predict")
        if facts["version"] > FORMAT_VERSION:
            raise RunFolderError(f"{folder} was written by a newer headclip; update to read it")
        table = folder / PARQUET_TABLE
        if facts["status"] == "finished" and table.is_file():
            rows = _read_table(table)
        else:
            rows = [entry.row for entry in read_journal(folder / JOURNAL)[0].values()]
        return cls(folder, tuple(rows), facts)

    @property
    def name(self) -> str:
        """The folder's own name, as tables and pages can show it."""
        return printable(self.folder.name)

    @property
    def settings(self) -> dict[str, Any]:
        """What the detector said of itself: backbone, checkpoint, method, sizes."""
        return self.facts["settings"]

    @property
    def finished(self) -> bool:
        """False while the run goes on, and after a kill until --resume."""
        return self.facts["status"] == "finished"

    @property
    def ok(self) -> list[Row]:
        """The judged images."""
        return [row for row in self.rows if row.status == "ok"]

    @property
    def failed(self) -> list[Row]:
        """The images that could not be judged, each with its reason."""
        return [row for row in self.rows if row.status == "failed"]

    @property
    def judgement(self) -> dict[str, Any] | None:
        """What was judged by: criteria, calibration, counts of verdicts; None where no threshold was applied."""
        return self.facts.get("judgement")

    @property
    def criteria(self) -> Criteria | None:
        """The thresholds in force."""
        return None if self.judgement is None else Criteria.from_json(self.judgement["criteria"])

    def load_regions(self) -> dict[str, tuple[Region, ...]]:
        """The regions of the images that have any, by the images' names."""
        return read_regions(self.folder)

    def load_labels(self) -> dict[str, int]:
        """The labels known of images, by their names: 0 normal, 1 anomalous. Empty where none were given."""
        return read_labels(self.folder)

    def mask_path(self, row: Row) -> Path:
        """The mask of the regions; exists where the row has any."""
        return self.folder / mask_file(row.path)

    @property
    def report(self) -> Path:
        """The page to open; exists when the run is finished."""
        return self.folder / REPORT

    def load_map(self, row: Row) -> NDArray[np.float32]:
        """The anomaly map of a row: (H, W) at the image's own resolution, in [0, 1].

        Raises:
            RunFolderError: the row failed, or its file is missing or damaged.
        """
        if row.map is None:
            raise RunFolderError(f"{row.path} has no map: {row.reason}")
        return read_map(self.folder / row.map)

    def image_path(self, row: Row) -> Path:
        """Where the image was when it was judged."""
        return stored_path(Path(self.facts["root"]) / row.path)

    def overlay_path(self, row: Row) -> Path:
        """The picture with the tinted map."""
        return self.folder / overlay_file(row.path)

    def preview_path(self, row: Row) -> Path:
        """The reduced picture without it."""
        return self.folder / preview_file(row.path)


def _read_table(table: Path) -> list[Row]:
    """The rows of results.parquet; columns that an older headclip did not write are None."""
    try:
        with table.open("rb") as handle, pq.ParquetFile(handle) as file:  # pyarrow takes no path that is no UTF-8
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(number).total_byte_size for number in groups)
            if size > MAX_TABLE:
                raise ValueError(f"it unpacks to {size:,} bytes")
            present = set(file.schema_arrow.names)
            lines = file.read(columns=[name for name in COLUMNS if name in present]).to_pylist()
        return [checked_row(line) for line in lines]
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        raise RunFolderError(
            f"{table} is damaged ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__}); "
            "headclip predict with --resume makes it again"
        ) from error


def checked_row(values: Mapping[str, Any]) -> Row:
    """A row from a file.

    Raises:
        ValueError, TypeError: it is none; a field is of the wrong kind, or a number that is none.
    """
    if fault := row_fault(values):
        raise ValueError(fault)
    return Row(**values)


def read_journal(path: Path) -> tuple[dict[str, Entry], int]:
    """The entries of a journal by image name, and the length in bytes of its sound part.

    Of several lines on one image the last counts, and one that says that it is gone takes it away. A last line that
    a kill cut short is left out.
    """
    entries: dict[str, Entry] = {}
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return entries, 0
    sound = content.rfind(b"\n") + 1
    for line in content[:sound].splitlines():
        try:
            values = parse_json(line)
            if _GONE in values:
                entries.pop(values[_GONE], None)
                continue
            entry = Entry(checked_row(values["row"]), values["size"], values["mtime_ns"], values.get("sha256"))
        except (ValueError, KeyError, TypeError):
            continue  # a line damaged by the disk: that image is judged again
        entries[entry.row.path] = entry
    return entries, sound


def journal_line(entry: Entry) -> bytes:
    """One line of the journal, ending in a newline."""
    return json.dumps(asdict(entry)).encode() + b"\n"


def gone_line(name: str) -> bytes:
    """The line of a journal by which the image `name` is in the run no longer."""
    return json.dumps({_GONE: name}).encode() + b"\n"


def csv_bytes(rows: Iterable[Row]) -> bytes:
    """The table as CSV (UTF-8); absent values are empty, scores have six decimals."""
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for row in rows:
        values = (getattr(row, column) for column in COLUMNS)
        writer.writerow(f"{value:.6f}" if isinstance(value, float) else value for value in values)
    return buffer.getvalue().encode()


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """The table as Parquet, with the same columns."""
    sink = io.BytesIO()
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    pq.write_table(pa.table(columns, schema=_SCHEMA), sink)
    return sink.getvalue()
