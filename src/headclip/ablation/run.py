"""An ablation from beginning to end: plan, train, judge, tabulate, plot."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headclip.ablation.cells import Cell, make_cells, ratio_plan
from headclip.ablation.definitions import RATIOS, Ablation
from headclip.ablation.judging import Court, JudgingSettings, useful
from headclip.ablation.left_out import ASKED, asked_rows, with_finished
from headclip.ablation.models import Failure, Progress, TrainingData, Workshop
from headclip.ablation.plan import Plan, Row, Settings, make_plan
from headclip.ablation.plots import draw
from headclip.ablation.printed import printed
from headclip.ablation.tables import Report, csv_table, markdown
from headclip.clip.backbone import Backbone
from headclip.data.datasets import Dataset
from headclip.errors import InputError
from headclip.evaluation.evaluate import unique_names
from headclip.evaluation.judged import choose, dataset_key
from headclip.evaluation.outputs import versions
from headclip.files import results_in, write_atomically
from headclip.locks import sole_writer

FORMAT = "headclip-ablation"
RESULTS, TABLE, CSV = "results.json", "table.md", "table.csv"


@dataclass(frozen=True)
class AblationOptions:
    """What an ablation is made with. seeds: of first values and order; features: see `Workshop`."""

    data: TrainingData = field(default_factory=TrainingData)
    seeds: tuple[int, ...] = (111, 112, 113)
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    judging: JudgingSettings = field(default_factory=JudgingSettings)
    image_size: int | None = None
    features: bool | Path = True
    figures: bool = True
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError("an ablation needs at least one seed, each once")
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite exclude each other; give one of them")


@dataclass
class Outcome:
    """What an ablation found. hints: for the person at the screen; failures: models that could not be trained."""

    out: Path
    report: Report
    seconds: float
    hints: list[str] = field(default_factory=list)
    failures: Sequence[Failure] = ()

    @property
    def cells(self) -> Sequence[Cell]:
        """Figures of every row and dataset, and their averages."""
        return self.report.cells


def ablate(
    ablation: Ablation,
    backbone: Backbone,
    datasets: Sequence[Dataset],
    out: Path,
    options: AblationOptions | None = None,
    *,
    command: str = "",
    progress: Progress = lambda stage, done, total, failed: None,
) -> Outcome:
    """Train and judge what is not in `out` yet, then write table.md, table.csv, results.json and the figure.

    Every checkpoint (models/) and every judgement of a dataset by a detector (records/) is written whole when it is
    done and never made twice; with `resume`, a stopped ablation goes on, also with more seeds or datasets than before.
    Rows that `find_ablation` left out stay in the tables where they were finished earlier. A model whose training
    diverges is among the failures, and the others go on.

    Raises:
        InputError: settings, layers or datasets that do not fit, images to be trained on among those to be tested
            on, or `out` holds an ablation made with others.
        KeyboardInterrupt: passed on; `resume` goes on.
    """
    options, started = options or AblationOptions(), time.perf_counter()
    plan = make_plan(ablation, backbone.config, Settings.parse(options.settings), Settings.parse(options.train))
    wanted, notes = useful(datasets, ablation.levels)
    unique_names(wanted)
    workshop = Workshop(backbone, options.data, out, options.image_size, options.features)
    workshop.check(plan)
    facts = _facts(ablation, backbone, options)
    asked = asked_rows(plan, _check_out(out, facts, options))
    known = {**facts, ASKED: asked}
    with sole_writer(out / RESULTS):
        write_atomically(out / RESULTS, json.dumps({"format": FORMAT, "status": "running", **known}, indent=2) + "\n")
        court = Court(workshop, options.judging)
        court.refuse_leakage(plan, options.seeds, wanted, progress)
        workshop.train(plan, options.seeds, progress)
        court.judge(plan, options.seeds, wanted, progress)
        tabulated, unfinished = with_finished(plan, asked, court.record, options.seeds, wanted)
        notes += [*unfinished, *map(str, workshop.failures)]
        report = _report(tabulated, court, wanted, options, command, notes)
        outcome = Outcome(out, report, time.perf_counter() - started, failures=workshop.failures)
        _write(outcome, known, options, command)
    return outcome


def _facts(ablation: Ablation, backbone: Backbone, options: AblationOptions) -> dict[str, Any]:
    """What must be equal for an ablation to be resumed; seeds and datasets may be more."""
    judging = options.judging
    facts = {
        "ablation": ablation.name,
        "backbone_hash": backbone.hash,
        "data": vars(options.data),
        "settings": dict(options.settings),
        "train": dict(options.train),
        "image_size": options.image_size,
        "resolution": judging.options.scale,
        "limit": judging.limit,
    }
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


def _check_out(out: Path, facts: Mapping[str, Any], options: AblationOptions) -> Mapping[str, Any]:
    """What results.json says of the ablation in `out` to go on with, {} without one; with `overwrite`, what is removed.

    Raises:
        InputError: it is a file, holds something else, or an ablation with other settings.
    """
    found = results_in(out, RESULTS, FORMAT, "ablation")
    if found is None:
        return {}
    if options.overwrite:
        _empty(out)
        return {}
    if not options.resume:
        state = "a finished" if found.get("status") == "finished" else "an unfinished"
        raise InputError(
            f"{out} already holds {state} ablation; add --resume to go on with it (also with more seeds or datasets), "
            "--overwrite to replace it, or choose another folder"
        )
    other = [
        f"{name} ({found.get(name)} there, {value} now)" for name, value in facts.items() if found.get(name) != value
    ]
    if other:
        raise InputError(f"{out} cannot be resumed: it was made with other {', '.join(other)}")
    return found


def _empty(out: Path) -> None:
    for name in ("models", "records", "scratch"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (RESULTS, TABLE, CSV, "figure.png", "figure.svg", "ratio.png", "ratio.svg"):
        (out / name).unlink(missing_ok=True)


def _report(
    plan: Plan, court: Court, datasets: Sequence[Dataset], options: AblationOptions, command: str, notes: list[str]
) -> Report:
    by_key = {dataset_key(dataset): dataset for dataset in datasets}
    protocol = options.judging.protocol

    known: dict[tuple[str, int, str], dict[str, Any] | None] = {}  # rows that differ in the ratio alone read the same

    def read(row: Row, seed: int, key: str) -> dict[str, Any] | None:
        place = (row.judge.key, seed, key)
        if place not in known:
            known[place] = court.record(row.judge, seed, by_key[key])
        return known[place]

    cells = make_cells(plan, options.seeds, list(by_key), read, protocol)
    ratio = ratio_plan(plan, RATIOS) if plan.ablation.ratio else None
    curves = [] if ratio is None else make_cells(ratio, options.seeds, list(by_key), read, protocol)
    families = {key: dataset.info.family for key, dataset in by_key.items()}
    return Report(
        plan,
        cells,
        families,
        _heading(plan, court, datasets, options, command),
        notes + _notes(court, plan, datasets, options.seeds),
        [cell for cell in curves if any(cell.values("image_mad"))],
    )


def _heading(
    plan: Plan, court: Court, datasets: Sequence[Dataset], options: AblationOptions, command: str
) -> dict[str, str]:
    data, backbone = options.data, court.workshop.backbone
    source = f"{data.images:,} rendered images (seed {data.seed})" if data.source == "synthetic" else data.source
    rows = {
        "backbone": f"{backbone.name} ({backbone.hash[:12]}), {backbone.config.vision.layers} vision layers",
        "trained on": f"{source}, the same for every seed" if plan.models else "",
        "tested on": ", ".join(f"{d.info.title} ({_count(d, options.judging.limit)})" for d in datasets),
        "seeds": ", ".join(map(str, options.seeds)) + " (first values and order of the images)",
        "settings": _settings(options.settings),
        "training": _settings(options.train),
        "protocol": f"{options.judging.protocol}, maps and masks at the resolution of the "
        + {"image": "image", "tower": "tower's input"}[options.judging.options.scale],
        "first look": f"at most {options.judging.limit} images of each category" if options.judging.limit else "",
        "command": f"`{command}`" if command else "",
    }
    return {name: text for name, text in rows.items() if text}


def _count(dataset: Dataset, limit: int | None) -> str:
    """How many images are judged, and of how many."""
    judged = len(choose(dataset, limit))
    return f"{judged:,} images" if judged == len(dataset) else f"{judged:,} of {len(dataset):,} images"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={json.dumps(value)}`" for name, value in values.items())


def _notes(court: Court, plan: Plan, datasets: Sequence[Dataset], seeds: Sequence[int]) -> list[str]:
    """What was found in judging, once for each dataset, and leakage."""
    notes: list[str] = []
    for dataset in datasets:
        info = dataset.info
        if not info.paper and any(printed(plan, row.variant, dataset=info.family) for row in plan.rows):
            notes.append(f"{info.title}: the published rows are for another version of {info.family}")
        for judge in plan.judges:
            for seed in judge.seeds(seeds):
                record = court.record(judge, seed, dataset) or {"notes": [], "leakage": ""}
                found = [*record["notes"], *([f"LEAKAGE: {record['leakage']}"] if record["leakage"] else [])]
                notes += [f"{dataset.info.title}: {note}" for note in found]
    return list(dict.fromkeys(notes))


def _write(outcome: Outcome, known: Mapping[str, Any], options: AblationOptions, command: str) -> None:
    out, report = outcome.out, outcome.report
    write_atomically(out / TABLE, markdown(report))
    write_atomically(out / CSV, csv_table(report))
    if options.figures:
        outcome.hints += draw(report, out)
    content = {
        "format": FORMAT,
        "status": "finished",
        **known,
        "title": report.plan.ablation.title,
        "table": report.plan.ablation.table,
        "seeds": list(options.seeds),
        "protocol": options.judging.protocol,
        "command": command,
        "seconds": round(outcome.seconds, 1),
        "versions": versions(),
        "head": report.head,
        "notes": list(report.notes),
        "failures": [vars(failure) for failure in outcome.failures],
        "models": {model.key: {"method": model.method, "train": model.train} for model in report.plan.models},
        "rows": [_row(row) for row in report.plan.rows],
        "cells": [_cell(cell) for cell in [*report.cells, *report.ratio_cells]],
    }
    write_atomically(out / RESULTS, json.dumps(content, indent=2) + "\n")


def _row(row: Row) -> dict[str, Any]:
    variant = row.variant
    return {
        "label": variant.label,
        "axis": variant.axis,
        "series": variant.series,
        "value": variant.at,
        "method": variant.method,
        "model": row.judge.model.key if row.judge.model.trained else None,
        "config": {
            **row.judge.model.config,
            **row.judge.scoring,
            **({} if row.alpha is None else {"alpha": row.alpha}),
        },
        "alpha": row.alpha,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "label": cell.variant.label,
        "axis": cell.variant.axis,
        "dataset": cell.dataset,
        "title": cell.title,
        "domain": cell.domain,
        "by_seed": {str(seed): dict(values) for seed, values in cell.by_seed.items()},
    }
