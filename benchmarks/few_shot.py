"""What a few normal images bring, beside the same detector without any.

    python benchmarks/few_shot.py --data elpv=data-pypi/elpv_dataset --data sdd=data/SDD --limit 600 --out runs/few-shot

For each seed as many normal images as the largest number of shots are drawn and left out of all figures; fewer shots
are the first of them. All numbers of shots judge the same images in one pass. Prints image AUROC, pixel AUROC and pixel
AP in percent, the mean over the seeds and the range, and the mean difference from zero shots; the tables of each seed,
with bootstrap intervals, are in the folder as well.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean

from headclip.cli.progress import Stages, guarded
from headclip.clip.weights import load_backbone
from headclip.data.datasets import Dataset, open_spec
from headclip.errors import HeadclipError
from headclip.evaluation.evaluate import Evaluation, Options, evaluate_together
from headclip.files import write_atomically
from headclip.inference.detector import Detector

FIGURES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP"}
PROTOCOL = "exact"
ZERO = "zero-shot"


def measure(dataset: Dataset, shots: list[int], method: str, out: Path, options: Options) -> Evaluation:
    """All numbers of shots on the images that are left, in one pass."""
    backbone = load_backbone("embedded")
    counts = {ZERO: 0} | {f"{count} normal": count for count in shots}
    detectors = {label: Detector(backbone, method=method) for label in counts}

    def work(progress: Stages) -> Evaluation:
        command = shlex.join(["python", *sys.argv])
        chosen = replace(options, shots=counts)
        return evaluate_together(detectors, [dataset], out, chosen, command=command, progress=progress)

    return guarded(work, quiet=False)


def table(found: dict[str, list[Evaluation]], labels: list[str]) -> str:
    """Markdown: a row for each dataset and number of shots."""
    lines = [f"| set | normal images | {' | '.join(FIGURES.values())} |", "|---|---|" + "---|" * len(FIGURES)]
    for name, evaluations in found.items():
        results = [{result.method: result.mean[PROTOCOL] for result in one.results} for one in evaluations]
        for label in labels:
            cells = [
                _cell([seed[label].get(key) for seed in results], [seed[ZERO].get(key) for seed in results])
                for key in FIGURES
            ]
            lines.append(f"| {name} | {label.removesuffix(' normal')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float | None], zero: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values):
        return ""
    gain = mean(known) - mean(100 * value for value in zero if value is not None)
    change = f", {gain:+.1f}" if values != zero else ""
    return f"{mean(known):.1f} ({min(known):.1f} to {max(known):.1f}){change}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shots", default="2,4,8,16,32", help="numbers of normal images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--method", default="headclip")
    parser.add_argument("--limit", type=int, help="images of a dataset, half of them normal")
    parser.add_argument("--bootstrap", type=int, default=1000)
    chosen = parser.parse_args()
    shots = sorted(int(number) for number in chosen.shots.split(","))
    options = Options(bootstrap=chosen.bootstrap, limit=chosen.limit, figures=False, worst=0, resume=True)
    found: dict[str, list[Evaluation]] = {}
    try:
        for spec in chosen.data:
            dataset = open_spec(spec)
            for seed in range(chosen.seeds):
                out = chosen.out / f"{dataset.name}-{seed}"
                seeded = replace(options, seed=seed)
                found.setdefault(dataset.info.title, []).append(measure(dataset, shots, chosen.method, out, seeded))
    except HeadclipError as error:
        raise SystemExit(f"error: {error}") from error
    text = table(found, [ZERO, *(f"{count} normal" for count in shots)])
    write_atomically(chosen.out / "table.md", f"`{shlex.join(['python', *sys.argv])}`\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
