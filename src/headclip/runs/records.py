"""What judging keeps beside the table of a run: the regions of its images, and their known labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from headclip.csv_text import CsvText
from headclip.files import parse_json
from headclip.judgement.regions import Region
from headclip.runs.files import LABELS, REGIONS, RunFolderError


def regions_bytes(regions: Mapping[str, Sequence[Region]]) -> bytes:
    """regions.jsonl: one line for each image with regions."""
    lines = (
        json.dumps({"path": path, "regions": [region.to_json() for region in found]}, separators=(",", ":"))
        for path, found in regions.items()
    )
    return "".join(line + "\n" for line in lines).encode()


def read_regions(folder: Path) -> dict[str, tuple[Region, ...]]:
    """What `regions_bytes` wrote into a run folder; {} where there is none.

    Raises:
        RunFolderError: the file is damaged.
    """
    try:
        lines = [parse_json(line) for line in (folder / REGIONS).read_bytes().splitlines()]
        return {line["path"]: tuple(map(Region.from_json, line["regions"])) for line in lines}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise RunFolderError(f"{folder / REGIONS} is damaged; `headclip rejudge` makes it again") from error


def labels_bytes(labels: Mapping[str, int]) -> bytes:
    """labels.csv of a run folder: path, label (0 normal, 1 anomalous)."""
    buffer = CsvText()
    writer = csv.writer(buffer)
    writer.writerow(("path", "label"))
    writer.writerows(labels.items())
    return buffer.getvalue().encode()


def read_labels(folder: Path) -> dict[str, int]:
    """What `labels_bytes` wrote into a run folder; {} where there is none. Lines that make no sense are left out."""
    try:
        with (folder / LABELS).open(encoding="utf-8", newline="") as handle:
            lines = list(csv.reader(handle))[1:]
    except FileNotFoundError:
        return {}
    except (csv.Error, UnicodeError) as error:
        raise RunFolderError(
            f"{folder / LABELS} is damaged ({error}); `headclip rejudge RUN --labels PATH` writes it anew"
        ) from error
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1] in ("0", "1")}
