"""Regions of a run in the formats of other tools: COCO, Label Studio, CSV, mask images."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from headclip.csv_text import CsvText
from headclip.data.discover import printable
from headclip.errors import InputError
from headclip.files import write_atomically
from headclip.judgement.regions import Region
from headclip.runs.export_masks import check_file, read_mask, write_masks
from headclip.runs.files import RunFolderError
from headclip.runs.run import Row, Run
from headclip.version import __version__

CATEGORY = "anomaly"
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves the files of its document root."""
CSV_COLUMNS = (
    "path", "verdict", "score", "region", "area", "left", "top", "width", "height", "peak", "peak_x", "peak_y", "mean",
    "area_mm2", "width_mm", "height_mm",
)  # fmt: skip


def export_regions(
    run: Run,
    kind: str,
    out: str | Path,
    *,
    verdicts: Collection[str] | None = None,
    url_prefix: str = LOCAL_FILES,
    overwrite: bool = False,
) -> int:
    """Write the regions of a run for another tool; the number of regions (of images for masks).

    Args:
        kind: "coco", "labelstudio" (JSON files), "csv" (one line a region), or "masks" (a folder: one PNG for each
            judged image, white inside regions).
        out: the file, or the folder for masks.
        verdicts: only images with one of these.
        url_prefix: what stands before the image names for Label Studio.
        overwrite: masks may go into a folder that is not empty, and replace files of their names there.

    Raises:
        RunFolderError: the run has no regions because no pixel threshold was applied, or its masks are damaged.
        InputError: an unknown kind; `out` would overwrite images or files of the run, or is a folder that holds
            something already.
    """
    if kind not in KINDS:
        raise InputError(f"{kind} is no format; choose one of {', '.join(KINDS)}")
    if run.criteria is None or run.criteria.pixel is None:
        raise RunFolderError(
            f"{run.folder} has no regions, as no pixel threshold was applied; give it one with "
            "`headclip rejudge RUN --calibration FILE` or `--threshold X --pixel-threshold Y`"
        )
    regions = run.load_regions()
    rows = [row for row in run.ok if verdicts is None or row.verdict in verdicts]
    if kind == "masks":
        return write_masks(run, rows, Path(out), overwrite=overwrite)
    check_file(run, Path(out))
    content = KINDS[kind](run, rows, regions, url_prefix)
    write_atomically(Path(out), content, follow=True)
    return sum(len(regions.get(row.path, ())) for row in rows)


def coco(run: Run, rows: Sequence[Row], regions: Mapping[str, Sequence[Region]], url_prefix: str = "") -> str:
    """COCO object detection JSON. Boxes and areas are exact; polygons where a region has no hole, else RLE."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, row in enumerate(rows, start=1):
        images.append(
            {"id": image_id, "file_name": row.path, "width": row.width, "height": row.height, "score": row.score,
             "verdict": row.verdict}
        )  # fmt: skip
        found = regions.get(row.path, ())
        labels = _labels(run, row) if any(region.holes for region in found) else None
        for region in found:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": list(region.box),
                    "area": region.area,
                    "segmentation": _segmentation(region, labels),
                    "iscrowd": 0,
                    "score": region.peak,
                    "mean": region.mean,
                }
            )
    about = {
        "description": f"Regions found by headclip in {printable(run.folder.resolve().name)}",
        "version": __version__,
        "date_created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    categories = [{"id": 1, "name": CATEGORY, "supercategory": ""}]
    return json.dumps({"info": about, "images": images, "annotations": annotations, "categories": categories}) + "\n"


def label_studio(
    run: Run, rows: Sequence[Row], regions: Mapping[str, Sequence[Region]], url_prefix: str = LOCAL_FILES
) -> str:
    """Label Studio tasks with predictions: a polygon for each region (percent of the image), the verdict as a choice.

    For a labelling configuration with `<Image name="image" value="$image"/>`, `<PolygonLabels name="label"
    toName="image">` holding `anomaly`, and `<Choices name="verdict" toName="image">` holding ok, review, defect.
    Holes are lost: Label Studio's polygons have none.
    """
    tasks = []
    for row in rows:
        size = {"original_width": row.width, "original_height": row.height, "image_rotation": 0}
        result: list[dict[str, Any]] = [
            {
                **size,
                "id": f"region-{region.number}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "score": region.peak,
                "value": {
                    "points": [[100 * x / (row.width or 1), 100 * y / (row.height or 1)] for x, y in region.polygon],
                    "closed": True,
                    "polygonlabels": [CATEGORY],
                },
            }
            for region in regions.get(row.path, ())
        ]
        if row.verdict is not None:
            choice = {"type": "choices", "from_name": "verdict", "to_name": "image"}
            result.append({"id": "verdict", **choice, "value": {"choices": [row.verdict]}})
        prediction = {"model_version": f"headclip {__version__}", "score": row.score, "result": result}
        tasks.append({"data": {"image": url_prefix + quote(row.path)}, "predictions": [prediction]})
    return json.dumps(tasks) + "\n"


def region_table(run: Run, rows: Sequence[Row], regions: Mapping[str, Sequence[Region]], url_prefix: str = "") -> str:
    """One line for each region, in pixels and, where the pixel pitch is known, millimetres."""
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        for region in regions.get(row.path, ()):
            values = [region.number, region.area, *region.box, region.peak, *region.peak_at, region.mean]
            metric = [region.area_mm2, *(region.box_mm or (None, None))]
            cells = [row.path, row.verdict, row.score, *values, *metric]
            writer.writerow(f"{cell:.6g}" if isinstance(cell, float) else cell for cell in cells)
    return buffer.getvalue()


KINDS: dict[str, Callable[..., str]] = {
    "coco": coco,
    "labelstudio": label_studio,
    "csv": region_table,
    "masks": lambda *_: "",
}


def _labels(run: Run, row: Row) -> NDArray[np.int32]:
    """(H, W): 0 outside, else a number for each region."""
    return ndimage.label(read_mask(run, row), structure=np.ones((3, 3)))[0]


def _segmentation(region: Region, labels: NDArray[np.int32] | None) -> Any:
    """A polygon, or the run lengths of the columns, background first, as COCO has them."""
    if not region.holes or labels is None:
        return [[value for point in region.polygon for value in point]]
    x, y = region.peak_at
    mask = labels == labels[int(y), int(x)]
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(np.int8))) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
