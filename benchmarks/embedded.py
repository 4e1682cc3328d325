"""The embedded model on real images, beside two yardsticks judged in the same run.

    python benchmarks/embedded.py --data sdd=data/SDD --data elpv=data-pypi/elpv_dataset --out runs/yardsticks

Yardsticks: the same architecture with random weights, and `yardsticks.PatchNeighbours`, which learns nothing. Prints
image AUROC, AP, F1-max and pixel AUROC, AUPRO, AP in percent with bootstrap intervals, on which sets the intervals
of the embedded model lie above those of both yardsticks, and the differences, paired over the images. Each detector's
tables and curves are in the folder as well.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID
from yardsticks import PatchNeighbours

from headclip.clip.backbone import Backbone
from headclip.clip.initialise import initialise
from headclip.clip.weights import load_backbone
from headclip.data.datasets import open_spec
from headclip.errors import HeadclipError
from headclip.evaluation.bootstrap import Interval
from headclip.evaluation.comparison import MethodComparison, compare_results
from headclip.evaluation.evaluate import Evaluation, Options, evaluate
from headclip.files import write_atomically
from headclip.inference.detector import Detector

FIGURES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_aupro": "pixel AUPRO",
    "pixel_ap": "pixel AP",
}
DECISIVE = ("image_auroc", "pixel_auroc")
OURS = "embedded"


def random_model() -> Detector:
    """HeadCLIP on a tower of the embedded architecture that has learnt nothing."""
    trained = load_backbone("embedded")
    fresh = initialise(Backbone(trained.config, trained.tokenizer, "random weights"), seed=1).freeze()
    return Detector(fresh, settings={"cls_norm": True})


def detectors() -> dict[str, Any]:
    ours = Detector()
    patches = PatchNeighbours(least_side=ours.least_side)  # long pictures are larger for it, too
    return {OURS: ours, "random weights": random_model(), "patch neighbours": patches}


def measure(found: dict[str, Any], specs: list[str], out: Path, options: Options) -> dict[str, Evaluation]:
    results = {}
    with Progress(console=Console(stderr=True)) as bar:
        for name, detector in found.items():
            tasks: dict[str, TaskID] = {}

            def show(stage: str, done: int, total: int, failed: int, name: str = name, tasks: Any = tasks) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(f"{name}: {stage}", total=total)
                bar.update(tasks[stage], completed=done, total=total)

            datasets = [open_spec(spec) for spec in specs]
            results[name] = evaluate(detector, datasets, out / name.replace(" ", "-"), options, progress=show)
    return results


def table(evaluations: dict[str, Evaluation]) -> list[list[str]]:
    """Rows of cells: set, detector, then each figure with its interval, in percent."""
    rows = [["set", "detector", *FIGURES.values()]]
    for number, ours in enumerate(evaluations[OURS].results):
        for name, evaluation in evaluations.items():
            intervals = evaluation.results[number].intervals
            rows.append([ours.dataset.info.title, name, *(cell(intervals.get(figure)) for figure in FIGURES)])
    return rows


def cell(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{100 * interval.value:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def verdicts(evaluations: dict[str, Evaluation]) -> list[str]:
    """For each set and decisive figure: whether our interval lies above both yardsticks'; then paired differences."""
    lines = []
    others = [name for name in evaluations if name != OURS]
    for number, ours in enumerate(evaluations[OURS].results):
        paired = {name: compare_results([evaluations[name].results[number], ours])[0] for name in others}
        for figure in DECISIVE:
            if (mine := ours.intervals.get(figure)) is None:
                continue
            rivals = {name: evaluations[name].results[number].intervals[figure] for name in others}
            beaten = [name for name, rival in rivals.items() if mine.low > rival.high]
            lost = [name for name, rival in rivals.items() if mine.value <= rival.value]
            word = (
                "above both" if len(beaten) == len(rivals) else f"not above {', '.join(lost)}" if lost else "touching"
            )
            differences = ", ".join(f"to {name} {difference(found, figure)}" for name, found in paired.items())
            lines.append(f"{ours.dataset.info.title}, {FIGURES[figure]}: {word}; paired difference {differences}")
    return lines


def difference(found: MethodComparison, figure: str) -> str:
    """Ours less a yardstick's in percentage points, with its interval over the same draws of images."""
    if figure not in found.metrics:
        return f"unknown ({found.reason})"
    value = found.metrics[figure]
    return f"{100 * value.difference:+.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH", help="repeatable")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="images of each category")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--resume", action="store_true")
    chosen = parser.parse_args()
    options = Options(bootstrap=chosen.bootstrap, limit=chosen.limit, figures=False, worst=0, resume=chosen.resume)
    chosen.out.mkdir(parents=True, exist_ok=True)
    try:
        evaluations = measure(detectors(), chosen.data, chosen.out, options)
    except HeadclipError as error:
        raise SystemExit(f"error: {error}") from None
    head, *rows = table(evaluations)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *("| " + " | ".join(r) + " |" for r in rows)]
    command = shlex.join(["python", *sys.argv])
    text = "\n".join(["# The embedded model beside two yardsticks", "", f"`{command}`", "", *lines, ""])
    text += "\n" + "\n".join(f"- {line}" for line in verdicts(evaluations)) + "\n"
    write_atomically(chosen.out / "yardsticks.md", text.encode())
    Console(soft_wrap=True, markup=False, highlight=False).print(text)


if __name__ == "__main__":
    main()
