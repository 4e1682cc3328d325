"""Whether a finished evaluation would only be made again: then nothing needs to be judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headclip.data.datasets import Dataset
from headclip.evaluation.checks import finished_results, unique_names
from headclip.evaluation.evaluate import Options
from headclip.evaluation.fingerprint import dataset_fingerprint
from headclip.evaluation.judged import choose
from headclip.evaluation.outputs import short_facts, used_options
from headclip.inference.detector import Detector
from headclip.runs.facts import as_facts
from headclip.same_settings import differing
from headclip.version import __version__


def is_unchanged(out: Path, detectors: Mapping[str, Detector], datasets: Sequence[Dataset], options: Options) -> bool:
    """Whether `out` holds what these detectors, datasets and options give, with every image scored.

    Every image and mask is read to compare its content; that takes a small part of the time that judging takes.
    """
    found = _finished(out)
    if found is None or differing(found["options"], as_facts(used_options(options))):
        return False
    before = {(entry["dataset"], entry["method"]): entry for entry in found["results"]}
    described = options.compared.all_facts(detectors)
    datasets, _ = options.compared.split(datasets, options.max_pixels)
    facts = {label: as_facts(short_facts(known)) for label, known in described.items()}
    keys = unique_names(datasets)
    if set(before) != {(key, label) for key in keys for label in detectors}:
        return False
    if any(differing(entry["detector"], facts[label]) or _has_failed(entry) for (_, label), entry in before.items()):
        return False
    for dataset, key in zip(datasets, keys, strict=True):
        fingerprint = dataset_fingerprint(choose(dataset, options.limit))
        if any(before[key, label]["fingerprint"] != fingerprint for label in detectors):
            return False
    return True


def _has_failed(entry: Mapping[str, Any]) -> bool:
    """Whether an image could not be judged, which another attempt may do."""
    return any(image["status"] == "failed" for image in entry["not_scored"])


def _finished(out: Path) -> dict[str, Any] | None:
    """The results of a finished evaluation by this version; None where there are none, or they are damaged."""
    found = finished_results(out)
    if found is None:
        return None
    try:
        known = found["versions"]["headclip"] == __version__
        complete = all(
            {"dataset", "method", "detector", "fingerprint", "not_scored"} <= entry.keys() for entry in found["results"]
        )
    except (KeyError, TypeError, AttributeError):
        return None
    return found if known and complete and "options" in found else None
