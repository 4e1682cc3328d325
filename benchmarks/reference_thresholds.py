"""How well thresholds hold that come from the reference images themselves, each judged beside the others.

    python benchmarks/reference_thresholds.py --data elpv=data-pypi/elpv_dataset --data sdd=data/SDD --out table.md

For each seed some normal images are drawn as references, thresholds are calibrated on them alone, and others of the
same dataset, normal ones and anomalous ones, are judged by these. Prints, in percent, the share of false alarms that so
few images can say, and of the judged ones the mean over the seeds, with the standard deviation: normal images with an
alarm, normal ones with a region, anomalous ones with an alarm; beside them the same by the thresholds that ship with
the checkpoint.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from headclip.clip.weights import load_backbone
from headclip.data.datasets import Dataset, open_spec
from headclip.data.volumes.lone import LoneImage
from headclip.errors import HeadclipError, InputError
from headclip.evaluation.shots import ShotOptions, take_shots
from headclip.files import write_atomically
from headclip.inference.deciding import DEFAULT, criteria_of
from headclip.inference.detector import Detector
from headclip.inference.leaving_out import calibrate_on_references
from headclip.inference.peers import in_chance_order
from headclip.judgement.regions import RegionRules
from headclip.judgement.scored import score_images
from headclip.judgement.verdicts import Criteria

RULES = RegionRules()


@dataclass(frozen=True)
class Seen:
    """Shares: of normal images with an alarm and with a region, of anomalous ones with an alarm."""

    alarms: float
    regions: float
    caught: float


@dataclass(frozen=True)
class Draw:
    """asked: the share of false alarms that the references can say; own: by their thresholds; shipped: by those."""

    asked: float
    own: Seen
    shipped: Seen


def draw(dataset: Dataset, count: int, share: float, each: int, seed: int) -> Draw:
    """Thresholds from `count` normal images, on `each` others of either kind."""
    if len(dataset.categories) > 1:
        raise InputError(f"{dataset.info.title} has several categories; their thresholds differ")
    rest, drawn = take_shots(dataset, ShotOptions(count, seed))
    (files,) = drawn.files.values()
    detector = Detector(load_backbone("embedded"), references=files)
    found = calibrate_on_references(detector, files, share)
    judged = []
    for label in (0, 1):
        by_name = {rest.relative(record.path): record.path for record in rest.records if record.label == label}
        chosen = [LoneImage(by_name[name], name) for name in in_chance_order(by_name, seed)[:each]]
        judged.append(score_images(detector, chosen, RULES))
    asked = found.terms.false_alarms or share

    def by(criteria: Criteria) -> Seen:
        levels = judged[0].levels or []
        pixel = 1.0 if criteria.pixel is None else criteria.pixel
        return Seen(
            mean(score > criteria.threshold for score in judged[0].scores),
            mean(level > pixel for level in levels),
            mean(score > criteria.threshold for score in judged[1].scores),
        )

    return Draw(asked, by(found.criteria()), by(criteria_of(DEFAULT, detector.describe())))


def row(name: str, count: int, draws: list[Draw]) -> str:
    """A line of the table."""
    own, shipped = ([getattr(one, which) for one in draws] for which in ("own", "shipped"))
    cells = [f"{100 * mean(one.asked for one in draws):.1f}"]
    cells += [_spread([getattr(seen, key) for seen in own]) for key in ("alarms", "regions", "caught")]
    cells += [_spread([getattr(seen, key) for seen in shipped]) for key in ("alarms", "caught")]
    return f"| {name} | {count} | {' | '.join(cells)} |"


def _spread(shares: list[float]) -> str:
    return f"{100 * mean(shares):.1f} ± {100 * (stdev(shares) if len(shares) > 1 else 0.0):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--references", default="10,19,40", help="numbers of normal images")
    parser.add_argument("--false-alarms", type=float, default=0.05)
    parser.add_argument("--each", type=int, default=40, help="images judged for a seed, of either kind")
    parser.add_argument("--seeds", type=int, default=40)
    chosen = parser.parse_args()
    lines = [
        "| set | references | false alarms asked for | false alarms | normal ones with a region | caught | "
        "false alarms by the shipped threshold | caught by it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    try:
        for spec in chosen.data:
            dataset = open_spec(spec)
            for count in (int(number) for number in chosen.references.split(",")):
                seeds = range(chosen.seeds)
                draws = [draw(dataset, count, chosen.false_alarms, chosen.each, seed) for seed in seeds]
                lines.append(row(dataset.info.title, count, draws))
                print(lines[-1], flush=True)
    except HeadclipError as error:
        raise SystemExit(f"error: {error}") from error
    text = "\n".join(lines) + "\n"
    write_atomically(chosen.out, f"`{shlex.join(['python', *sys.argv])}`\n\n{text}")
    print(text)


if __name__ == "__main__":
    main()
