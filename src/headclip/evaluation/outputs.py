"""The files of an evaluation: tables in every format, scores of every image, figures, results.json."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headclip.csv_text import CsvText
from headclip.data.hashing import training_sets
from headclip.evaluation.averages import Average, averages
from headclip.evaluation.comparison import comparison_csv, comparison_table
from headclip.evaluation.curves import draw_figures
from headclip.evaluation.fingerprint import dataset_fingerprint
from headclip.evaluation.latex import latex
from headclip.evaluation.markdown import markdown
from headclip.evaluation.scoring import DatasetResult
from headclip.evaluation.tables import csv_table, parquet_table
from headclip.evaluation.worst import write_worst
from headclip.files import write_atomically
from headclip.metrics import PROTOCOLS
from headclip.runs.facts import as_facts
from headclip.version import software_versions

if TYPE_CHECKING:
    from headclip.evaluation.evaluate import Evaluation, Options

FORMAT = "headclip-evaluation"
RESULTS, FIGURES = "results.json", "figures"
COMPARISONS = "comparisons.csv"
WORST = "worst.html"
FILES = (COMPARISONS, "scores.csv", "tables.csv", "tables.parquet", "tables.md", "tables.tex", WORST)


def write_outputs(evaluation: Evaluation, progress: Callable[[str, int, int, int], None]) -> None:
    """Write every file of an evaluation; results.json last."""
    out, rows = evaluation.out, evaluation.rows
    write_atomically(out / "scores.csv", scores_csv(evaluation.results))
    write_atomically(out / "tables.csv", csv_table(rows))
    write_atomically(out / "tables.parquet", parquet_table(rows))
    heading, compared = heading_facts(evaluation), evaluation.comparisons
    write_atomically(out / "tables.md", markdown(evaluation.results, rows, heading) + comparison_table(compared))
    write_atomically(out / "tables.tex", latex(evaluation.results, rows, heading))
    _remove_earlier(out)
    if compared:
        write_atomically(out / COMPARISONS, comparison_csv(compared))
    if evaluation.options.figures:
        evaluation.hints += draw_figures(evaluation.results, out / FIGURES)
    if evaluation.options.worst:
        write_worst(evaluation.results, out / WORST, evaluation.options.worst, progress)
    write_atomically(out / RESULTS, json.dumps(as_facts(results_json(evaluation)), indent=2) + "\n")


def _remove_earlier(out: Path) -> None:
    """Take away what only some evaluations have: a resumed one may be told to leave it out, or have other datasets."""
    for name in (COMPARISONS, WORST):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / FIGURES, ignore_errors=True)


def scores_csv(results: Sequence[DatasetResult]) -> str:
    """One row for each image, those that could not be scored included."""
    buffer = CsvText()
    writer = csv.writer(buffer)
    columns = ["dataset", "method", "path", "category", "defect", "label", "score", "pixel_auroc", "status", "reason"]
    writer.writerow(columns)
    for result in results:
        for image in result.images:
            record = image.record
            label = "" if record.label is None else record.label
            score = "" if image.score is None else f"{image.score:.6f}"
            located = result.located.get(image.name)
            place = "" if located is None else f"{located:.6f}"
            facts = [record.category, record.defect, label, score, place, image.status, image.reason or ""]
            writer.writerow([result.name, result.method, image.name, *facts])
    return buffer.getvalue()


def heading_facts(evaluation: Evaluation) -> dict[str, Any]:
    """The lines above the tables."""
    options, facts = evaluation.options, {result.method: result.facts for result in evaluation.results}
    sizes = _each({label: str(known.get("image_size")) for label, known in facts.items()})
    where = {"image": "the image's own resolution", "tower": f"{sizes} px, the tower's input"}
    backbones = {n: f"{known.get('backbone')} ({str(known.get('backbone_hash'))[:12]})" for n, known in facts.items()}
    lines = {
        "method": ", ".join(facts),
        "backbone": _each(backbones),
        "checkpoint": _each({label: _checkpoint_line(known) for label, known in facts.items()}),
        "compared": _peers_line(facts),
        "few-shot": _normals_line(facts, evaluation.extra.get("shots") or {}),
        "protocol": f"{options.protocol}, maps and masks at {where[options.scale]}",
        "intervals": f"{options.bootstrap:,} bootstrap draws of images" if options.bootstrap else "none",
        "command": f"`{evaluation.command}`" if evaluation.command else None,
        "note": "; ".join(options.remarks),
    }
    return {key: value for key, value in lines.items() if value}


def _each(lines: Mapping[str, str]) -> str:
    """What all methods have in common, or what each of them has; those that have the same stand together."""
    labels: dict[str, list[str]] = {}
    for label, line in lines.items():
        labels.setdefault(line, []).append(label)
    if len(labels) == 1:
        return next(iter(labels))
    return "; ".join(f"{', '.join(names)}: {line}" for line, names in labels.items())


def _checkpoint_line(facts: Mapping[str, Any]) -> str:
    if not facts.get("checkpoint"):
        return "none: nothing was learnt"
    sets = [data for data in training_sets(facts.get("checkpoint_data") or {}) if data.get("name")]
    words = [f"on {data['name']} ({data.get('images', '?')} images)" for data in sets]
    trained = f", trained {', before that '.join(words)}" if words else ""
    return f"{Path(facts['checkpoint']).name} ({str(facts.get('checkpoint_hash'))[:12]}){trained}"


def _peers_line(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """What each method compared images with; "" where none did."""
    if not any(known.get("peers") for known in facts.values()):
        return ""
    lines = {}
    for label, known in facts.items():
        peers = known.get("peers")
        lines[label] = "with none" if not peers else f"with up to {peers['images']}, weight {peers['weight']:g}"
    task = "each image with unlabelled others of its kind (--peers), another task than that of single images"
    return f"{task}: {_each(lines)}"


def _normals_line(facts: Mapping[str, Mapping[str, Any]], shots: Mapping[str, Any]) -> str:
    """How many normal images each method had, and where they came from; "" where none had any."""
    lines = {}
    for label, known in facts.items():
        few, references = known.get("shots"), known.get("references")
        lines[label] = "zero-shot"
        if few:
            lines[label] = f"{few['images']} normal images of each category, seed {few['seed']} (--shots)"
        elif references:
            lines[label] = f"{len(references)} normal images, the same for all that is judged (--reference)"
    if set(lines.values()) == {"zero-shot"}:
        return ""
    left_out = [f"{len(taken['left_out'])} of {key}" for key, taken in shots.items() if taken["left_out"]]
    tested = f"; test images that are left out of all figures for it: {', '.join(left_out)}" if left_out else ""
    return f"another task than that of zero-shot figures: {_each(lines)}{tested}"


def results_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything, as JSON."""
    return {
        "format": FORMAT,
        "status": "finished",
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seconds": round(evaluation.seconds, 1),
        "command": evaluation.command,
        "arguments": evaluation.arguments,
        "options": used_options(evaluation.options),
        "versions": versions(),
        "results": [_result_json(result) for result in evaluation.results],
        "averages": [_average_json(average) for average in averages(evaluation.results, evaluation.options.protocol)],
        "comparisons": [comparison.json() for comparison in evaluation.comparisons],
        **evaluation.extra,
    }


def options_json(options: Options) -> dict[str, Any]:
    """The options on which results depend."""
    left_out = ("resume", "overwrite", "shard")
    return {key: value for key, value in vars(options).items() if key not in left_out}


def used_options(options: Options) -> dict[str, Any]:
    """`options_json` as results.json has it: with the resolution that was chosen, where it was left open."""
    return options_json(options) | {"resolution": options.scale}


def _result_json(result: DatasetResult) -> dict[str, Any]:
    facts = short_facts(result.facts)
    info = result.dataset.info
    return {
        "dataset": result.name,
        "opened_as": info.name,
        "title": info.title,
        "root": str(result.dataset.root),
        "fingerprint": result.fingerprint or dataset_fingerprint([image.record for image in result.images]),
        "method": result.method,
        "detector": facts,
        "leakage": result.leakage,
        "notes": list(result.notes),
        "mean": {protocol: dict(figures) for protocol, figures in result.mean.items()},
        "absent": dict(result.mean[PROTOCOLS[0]].absent),
        "intervals": _intervals_json(result.intervals),
        "categories": [
            {
                "name": category.name,
                "normal": category.normal,
                "anomalous": category.anomalous,
                "in_pixel_metrics": category.marked,
                "figures": {protocol: dict(figures) for protocol, figures in category.figures.items()},
                "absent": {protocol: figures.absent for protocol, figures in category.figures.items()},
                "intervals": _intervals_json(category.intervals),
                "bounds": category.bounds,
            }
            for category in result.categories
        ],
        "not_scored": [
            {"path": image.name, "status": image.status, "reason": image.reason} for image in result.not_scored()
        ],
    }


def short_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a detector says of itself without the hashes of its training images, which stay in the checkpoint, and
    without where that lies, which only the arguments say."""
    short = dict(facts)
    if short.get("checkpoint"):
        short["checkpoint"] = Path(short["checkpoint"]).name  # its hash says which
    if short.get("checkpoint_data"):
        short["checkpoint_data"] = _without_hashes(short["checkpoint_data"])
    return short


def _without_hashes(data: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's training sets without those of their images."""
    short: dict[str, Any] = {}
    for part in reversed(list(training_sets(data))):
        kept = {key: value for key, value in part.items() if key not in ("files", "looks", "earlier")}
        short = kept | ({"earlier": short} if short else {})
    return short


def _average_json(average: Average) -> dict[str, Any]:
    return {
        "method": average.method,
        "domain": average.domain,
        "datasets": [result.name for result in average.results],
        "figures": dict(average.figures),
        "absent": average.figures.absent,
        "intervals": _intervals_json(average.intervals),
    }


def _intervals_json(intervals: Mapping[str, Any]) -> dict[str, Any]:
    return {name: vars(value) for name, value in intervals.items()}


def versions() -> dict[str, str]:
    """Of the software that the figures depend on."""
    return software_versions("torch", "numpy", "scipy", "pillow")
