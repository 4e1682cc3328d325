"""From judged slices to judged volumes: a score each, and the maps put back into the volume's own voxels.

Files of a run that has volumes, beside those of every run:

- `volumes.csv`, `volumes.parquet`: a row for each volume; `slices.csv`, `slices.parquet`: a row for each slice.
- `volumes/NAME.anomaly.nii.gz` for NIfTI and DICOM, on the same voxels and with the same affine as the input, so that
  it can be laid over it; `volumes/NAME.anomaly.tif` for a TIFF, page for page. Values are the map's 16 bits; NIfTI
  says how to scale them to [0, 1].
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from headclip.csv_text import CsvText
from headclip.data.volumes.model import Volume, VolumeSet
from headclip.judgement.verdicts import Criteria, Verdict
from headclip.runs.files import SLICES, VOLUMES, place_file, volume_file, write_atomic
from headclip.runs.parquet import read_table
from headclip.runs.pictures import read_levels
from headclip.runs.run import Row

WORST, MAX_SHOWN = 6, 200  # slices of a volume that the report shows, and volumes


@dataclass(frozen=True)
class VolumeRow:
    """One volume of a run.

    score: mean of the `top` highest scores of its slices; worst_slice: the number, from 1, of the one with the highest;
    slices, failed: their numbers; file: the anomaly volume relative to the run folder, None without one; notes: what
    to know about it; verdict: "ok", "review" or "defect", None where no threshold of volumes has been applied.
    """

    volume: str
    kind: str
    status: str
    reason: str | None = None
    score: float | None = None
    top: int | None = None
    slices: int = 0
    failed: int = 0
    worst_slice: int | None = None
    worst_score: float | None = None
    file: str | None = None
    notes: str | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class SliceRow:
    """One slice of a run. slice: from 1, in the order of judging; index: from 0, along the axis of the anomaly volume;
    path: its row in results.csv."""

    volume: str
    slice: int
    index: int
    status: str
    score: float | None
    path: str


@dataclass(frozen=True)
class VolumeTables:
    """The tables of a run folder that has volumes."""

    volumes: tuple[VolumeRow, ...] = ()
    slices: tuple[SliceRow, ...] = field(default=(), repr=False)


def volume_score(scores: Sequence[float], share: float) -> tuple[float, int]:
    """Mean of the highest scores, and how many they are: a share of all, at least one.

    One slice of noise does not make a volume suspicious, and a lesion of few slices is not drowned by the sound ones.

    >>> volume_score([0.1, 0.9, 0.5, 0.3], 0.5)
    (0.7, 2)
    """
    top = max(1, math.ceil(share * len(scores) - 1e-9))
    return float(np.mean(sorted(scores, reverse=True)[:top])), top


def write_volumes(folder: Path, images: VolumeSet, rows: Sequence[Row]) -> VolumeTables:
    """Write tables and anomaly volumes of a judged run. Memory: a slice, whatever the size of the volume.

    Volumes of earlier calls on the same run stay in the tables.

    Raises:
        RunFolderError: a map is missing or damaged, or a file cannot be written.
    """
    by_name = {row.path: row for row in rows}
    earlier = read_volumes(folder)
    current = {volume.name for volume in images.volumes}
    volumes = [row for row in earlier.volumes if row.volume not in current]
    slices = [row for row in earlier.slices if row.volume not in current]
    for volume in images.volumes:
        judged = [by_name.get(one.name) for one in volume.slices]
        volumes.append(_write_volume(folder, volume, judged, images.options.top_share))
        if volume.reason is None:
            slices += _slice_rows(volume, judged)
    tables = VolumeTables(tuple(volumes), tuple(slices))
    _write_table(folder, VOLUMES, VolumeRow, tables.volumes)
    _write_table(folder, SLICES, SliceRow, tables.slices)
    return tables


def score_share(facts: Mapping[str, Any]) -> float | None:
    """The share of slices whose mean is the score of a volume, by the facts of a run; None for one without volumes."""
    share: float | None = facts.get("volumes", {}).get("top_share")
    return share


def judge_volumes(folder: Path, target: Path, criteria: Criteria | None, share: float | None) -> None:
    """Write the table of a run's volumes with verdicts; nothing where it has none. share: `score_share`.

    Raises:
        RunFolderError: the table cannot be written.
    """
    volumes = read_volumes(folder).volumes
    if volumes:
        _write_table(target, VOLUMES, VolumeRow, with_verdicts(volumes, criteria, share))


def with_verdicts(
    volumes: Sequence[VolumeRow], criteria: Criteria | None, share: float | None
) -> tuple[VolumeRow, ...]:
    """Volumes with their verdicts; None where no threshold of volumes holds for scores of such a share of slices."""
    rule = None if criteria is None or criteria.volume is None or criteria.volume.share != share else criteria.volume

    def verdict(row: VolumeRow) -> str | None:
        return None if rule is None or row.score is None else rule.verdict(row.score).value

    return tuple(replace(row, verdict=verdict(row)) for row in volumes)


def _write_table(folder: Path, name: str, kind: type[Any], lines: Sequence[Any]) -> None:
    write_atomic(folder, f"{name}.parquet", _parquet(kind, lines), force=True)
    write_atomic(folder, f"{name}.csv", _csv(kind, lines), force=True)


def read_volumes(folder: Path) -> VolumeTables:
    """The tables of a run folder; empty where it has no volumes."""
    try:
        volumes, slices = (read_table(folder / f"{name}.parquet").to_pylist() for name in (VOLUMES, SLICES))
        return VolumeTables(tuple(VolumeRow(**line) for line in volumes), tuple(SliceRow(**line) for line in slices))
    except (OSError, pa.ArrowException, TypeError):
        return VolumeTables()


def remove_volumes(folder: Path) -> None:
    """Take away what `write_volumes` wrote."""
    for name in (VOLUMES, SLICES):
        for suffix in ("parquet", "csv"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
    shutil.rmtree(folder / VOLUMES, ignore_errors=True)


def report_volumes(
    folder: Path, rows: Sequence[Row], criteria: Criteria | None = None, share: float | None = None
) -> tuple[list[dict[str, Any]], int]:
    """What the page shows of the MAX_SHOWN highest volumes, with the scores of their slices; and how many there are."""
    tables = read_volumes(folder)
    known = {row.path: row for row in rows}
    volumes = with_verdicts(tables.volumes, criteria, share)
    ordered = sorted(volumes, key=lambda row: -1.0 if row.score is None else row.score, reverse=True)
    slices_of: dict[str, list[SliceRow]] = {}
    for one in tables.slices:
        slices_of.setdefault(one.volume, []).append(one)
    shown = []
    for volume in ordered[:MAX_SHOWN]:
        slices = [row for row in slices_of.get(volume.volume, []) if row.path in known]
        judged = [row for row in slices if row.score is not None]
        worst = sorted(judged, key=lambda row: -(row.score or 0.0))[:WORST]
        verdicts = [known[row.path].verdict for row in judged]
        shown.append(
            asdict(volume)
            | {
                "link": quote(volume.file or "", errors="surrogateescape"),
                "worst": [row.path for row in worst],
                "paths": [row.path for row in slices],
                "profile": [None if row.score is None else round(row.score, 4) for row in slices],
                "not_ok": sum(verdict != Verdict.ok.value for verdict in verdicts) if any(verdicts) else None,
            }
        )
    return shown, len(ordered)


def _write_volume(folder: Path, volume: Volume, judged: Sequence[Row | None], share: float) -> VolumeRow:
    ok = [(index, row) for index, row in enumerate(judged) if row is not None and row.score is not None]
    failed = len(judged) - len(ok)
    if not ok:
        reasons = {row.reason for row in judged if row is not None and row.reason}
        reason = volume.reason or (reasons.pop() if len(reasons) == 1 else "no slice could be judged")
        counted = 0 if volume.reason is not None else len(judged)
        return VolumeRow(volume.name, volume.kind, "failed", reason, slices=counted, failed=counted)
    score, top = volume_score([row.score or 0.0 for _, row in ok], share)
    worst = max(ok, key=lambda pair: pair[1].score or 0.0)
    notes = list(volume.notes)
    if failed:
        notes.append(f"{failed} slice(s) could not be judged and are 0 in the anomaly volume")
    name = volume_file(volume.name, ".tif" if volume.grid is None else ".nii.gz")
    write = _write_tiff if volume.grid is None else _write_nifti
    place_file(folder, name, lambda path: write(path, folder, volume, judged))
    return VolumeRow(
        volume.name,
        volume.kind,
        "ok",
        None,
        score,
        top,
        len(judged),
        failed,
        worst[0] + 1,
        worst[1].score,
        name,
        "; ".join(notes) or None,
    )


def _slice_rows(volume: Volume, judged: Sequence[Row | None]) -> list[SliceRow]:
    rows = []
    for number, (one, row) in enumerate(zip(volume.slices, judged, strict=True)):
        index = number if volume.grid is None else volume.grid.voxel_index(number)
        score = None if row is None else row.score
        rows.append(SliceRow(volume.name, number + 1, index, "failed" if score is None else "ok", score, one.name))
    return rows


def _write_nifti(path: Path, folder: Path, volume: Volume, judged: Sequence[Row | None]) -> None:
    """The header, four bytes for `no extensions`, and the voxels, mapped rather than held, then packed."""
    grid = volume.grid
    assert grid is not None
    plain = path.with_name(path.name + ".nii")
    try:
        with plain.open("wb") as handle:
            handle.write(grid.header + b"\0\0\0\0")
            handle.truncate(len(grid.header) + 4 + 2 * math.prod(grid.shape))
        order = "<" if int.from_bytes(grid.header[:4], "little") in (348, 540) else ">"
        voxels = np.memmap(plain, order + "u2", "r+", len(grid.header) + 4, grid.shape, "F")
        for number, row in enumerate(judged):
            if row is not None and row.map is not None:
                grid.view(voxels, number)[:] = _sized(read_levels(folder / row.map), grid.slice_shape)
        voxels.flush()
        del voxels
        with plain.open("rb") as source, path.open("wb") as target, gzip.GzipFile("", "wb", 1, target, 0) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)
    finally:
        plain.unlink(missing_ok=True)


def _write_tiff(path: Path, folder: Path, volume: Volume, judged: Sequence[Row | None]) -> None:
    """Page for page; a page that could not be judged is black, of the size of the first that could."""
    size = next((row.height or 1, row.width or 1) for row in judged if row is not None and row.map is not None)
    with TiffImagePlugin.AppendingTiffWriter(str(path), new=True) as writer:
        for row in judged:
            known = row is not None and row.map is not None
            levels = read_levels(folder / str(row.map)) if row is not None and known else np.zeros(size, np.uint16)
            Image.fromarray(levels).save(writer, "TIFF", compression="tiff_adobe_deflate")
            writer.newFrame()


def _sized(levels: NDArray[np.uint16], shape: tuple[int, int]) -> NDArray[np.uint16]:
    """A map (H, W) at the resolution of the voxels: slices of voxels that are not square were stretched."""
    if levels.shape == shape:
        return levels
    resized = Image.fromarray(levels.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.rint(np.clip(np.asarray(resized), 0, 65535)).astype(np.uint16)


_TYPES = {"str": pa.string(), "int": pa.int32(), "float": pa.float64()}


def _parquet(kind: type[Any], rows: Sequence[Any]) -> bytes:
    schema = pa.schema([(one.name, _TYPES[str(one.type).split(" ")[0]]) for one in fields(kind)])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=schema), sink)
    return sink.getvalue()


def _csv(kind: type[Any], rows: Sequence[Any]) -> bytes:
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow([one.name for one in fields(kind)])
    for row in rows:
        values: Mapping[str, Any] = asdict(row)
        writer.writerow(f"{value:.6f}" if isinstance(value, float) else value for value in values.values())
    return buffer.getvalue().encode()
