"""Known labels of a run's images, and how the verdicts do against them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from headclip.data.discover import printable
from headclip.data.records import ImageRecord
from headclip.judgement.verdicts import Criteria, Verdict
from headclip.runs.run import Row, Run

NORMAL, ANOMALOUS = 0, 1
T = TypeVar("T")


def label_figures(rows: Iterable[Row], criteria: Criteria, labels: Mapping[str, int]) -> dict[str, Any] | None:
    """How alarms (scores above the threshold) and verdicts compare with labels; None where no row has one.

    Keys: images, anomalous; caught, missed, false_alarms, passed (counts); recall, precision, false_alarm_rate, f1,
    accuracy in [0, 1], None where not defined; verdicts: {"normal": {verdict: count}, "anomalous": {...}}.
    """
    known = [(row, labels[row.path]) for row in rows if row.path in labels and row.score is not None]
    if not known:
        return None
    alarms = [(criteria.alarm(row.score or 0.0), label == ANOMALOUS) for row, label in known]
    caught, missed = alarms.count((True, True)), alarms.count((False, True))
    false_alarms, passed = alarms.count((True, False)), alarms.count((False, False))
    table = {name: dict.fromkeys((verdict.value for verdict in Verdict), 0) for name in ("normal", "anomalous")}
    for row, label in known:
        table["anomalous" if label == ANOMALOUS else "normal"][criteria.verdict(row.score or 0.0).value] += 1
    return {
        "images": len(known),
        "anomalous": caught + missed,
        "caught": caught,
        "missed": missed,
        "false_alarms": false_alarms,
        "passed": passed,
        "recall": _share(caught, caught + missed),
        "precision": _share(caught, caught + false_alarms),
        "false_alarm_rate": _share(false_alarms, false_alarms + passed),
        "f1": _share(2 * caught, 2 * caught + missed + false_alarms),
        "accuracy": _share(caught + passed, len(known)),
        "verdicts": table,
    }


def match_labels(run: Run, records: Iterable[ImageRecord], root: Path) -> dict[str, int]:
    """The labels of a run's images, by `match_records`."""
    return {name: int(record.label or 0) for name, record in match_records(run, records, root).items()}


def match_records(run: Run, records: Iterable[ImageRecord], root: Path) -> dict[str, ImageRecord]:
    """What is known of a run's images: by the place of their files, else, where data have moved, by their names.

    Records without a label are left out. Names are compared relative to the run's root and to `root`, then without
    folders; a name that two images have on either side is left out. Never by order.
    """
    known = [(record.path.absolute(), record) for record in records if record.label is not None]
    keys: tuple[tuple[Callable[[Row], str], Callable[[Path], str]], ...] = (
        (lambda row: os.path.abspath(run.image_path(row)), lambda path: os.path.abspath(path)),  # noqa: PTH100
        (lambda row: row.path, lambda path: printable(Path(os.path.relpath(path, root)).as_posix())),
        (lambda row: Path(row.path).name, lambda path: printable(path.name)),
    )
    for of_row, of_path in keys:
        rows = _unique((of_row(row), row.path) for row in run.rows)
        found_records = _unique((of_path(path), record) for path, record in known)
        found = {rows[key]: found_records[key] for key in rows if key in found_records}
        if found:
            return found
    return {}


def _unique(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Without the keys that come twice."""
    listed = list(pairs)
    counts = Counter(key for key, _ in listed)
    return {key: value for key, value in listed if counts[key] == 1}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
