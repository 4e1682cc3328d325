"""What the regions of images that are not ok show of their defects, with the lower threshold for them and without.

    python benchmarks/regions.py --rendered 400 --data sdd=data/SDD --data kvasir=data/Kvasir-SEG --out table.md

Thresholds are those that ship with the embedded model, and, where a set has normal images enough, also those calibrated
on every second one of them, the other half being judged. Prints, of the anomalous images that are not ok, in percent:
those with a region, those with a region that touches the true defect, and the intersection over union of all regions
with the defect, mean over images with a 95 % bootstrap interval; and of all judged normal images those that show one.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headclip.data.datasets import Dataset, open_spec
from headclip.data.decode import decode
from headclip.data.levels import quantise
from headclip.data.synthetic import SyntheticDataset
from headclip.data.volumes.lone import LoneImage
from headclip.errors import HeadclipError
from headclip.files import write_atomically
from headclip.inference.deciding import DEFAULT, criteria_of
from headclip.inference.detector import Detector
from headclip.judgement.calibrate import calibrate
from headclip.judgement.conformal import Promise
from headclip.judgement.regions import RegionRules, region_mask
from headclip.judgement.scored import score_images
from headclip.judgement.verdicts import Criteria, Verdict

SIZE = 512  # of rendered pictures
FALSE_ALARMS = 0.05
LEAST_NORMALS = 40
Pair = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""An image, (H, W, 3), and where its defect is, (H, W)."""


@dataclass
class Shown:
    """Of anomalous images that are not ok: whether there is a region, one that touches, and the overlap."""

    regions: list[bool]
    touching: list[bool]
    overlaps: list[float]
    normal: list[bool]

    def add(self, mask: NDArray[np.bool_], truth: NDArray[np.bool_], not_ok: bool) -> None:
        if not truth.any():
            self.normal.append(bool(mask.any()))
        elif not_ok:
            self.regions.append(bool(mask.any()))
            self.touching.append(bool((mask & truth).any()))
            self.overlaps.append(float((mask & truth).sum() / (mask | truth).sum()))

    def cells(self, seed: int = 0) -> list[str]:
        if not self.overlaps:
            return ["-", "-", "-", _percent(self.normal)]
        overlaps = np.array(self.overlaps)
        draws = np.random.default_rng(seed).integers(0, len(overlaps), (1000, len(overlaps)))
        low, high = np.quantile(overlaps[draws].mean(axis=1), [0.025, 0.975])
        overlap = f"{100 * overlaps.mean():.1f} ({100 * low:.1f}-{100 * high:.1f})"
        return [_percent(self.regions), _percent(self.touching), overlap, _percent(self.normal)]


def rows(name: str, detector: Detector, pairs: Iterable[Pair], criteria: dict[str, Criteria]) -> list[str]:
    """Lines of the table: for each set of thresholds one without the lower one, and one with it."""
    shown = {(label, lower): Shown([], [], [], []) for label in criteria for lower in (False, True)}
    counts = dict.fromkeys(criteria, 0)
    anomalous = 0
    for image, truth in pairs:
        judged = detector.predict_arrays([image])[0]
        levels = quantise(judged.anomaly_map)
        anomalous += bool(truth.any())
        for label, rule in criteria.items():
            not_ok = rule.verdict(judged.score) is not Verdict.ok
            counts[label] += not_ok and bool(truth.any())
            for lower in (False, True):
                pixel = (rule if lower else replace(rule, alarm_pixel=None)).pixel_for(judged.score)
                shown[label, lower].add(region_mask(levels, 1.0 if pixel is None else pixel), truth, not_ok)
    lines = []
    for (label, lower), one in shown.items():
        head = [name, label, f"{counts[label]} of {anomalous}", "lower where not ok" if lower else "one for all"]
        lines.append(f"| {' | '.join([*head, *one.cells()])} |")
    return lines


def rendered(count: int, seed: int) -> Iterator[Pair]:
    """Pictures that the model has not seen, half of them with a defect."""
    pictures = SyntheticDataset(seed, count, SIZE)
    for index in range(count):
        sample = pictures[index]
        truth = sample.mask.numpy().reshape(SIZE, SIZE) > 0
        yield sample.image.permute(1, 2, 0).numpy(), truth


def of_dataset(dataset: Dataset, left_out: set[Path]) -> Iterator[Pair]:
    for record in dataset.records:
        if record.path in left_out:
            continue
        image = decode(record.path)
        truth = dataset.mask(record, image.shape[:2])
        if truth is not None and (record.label == 0 or truth.any()):
            yield image, truth


def own(dataset: Dataset, detector: Detector) -> tuple[Criteria | None, set[Path]]:
    """Thresholds by every second normal image, and these images."""
    chosen = [record.path for record in dataset.records if record.label == 0][::2]
    if len(chosen) < LEAST_NORMALS:
        return None, set()
    scored = score_images(detector, [LoneImage(path, str(path)) for path in chosen], RegionRules())
    return calibrate(scored, detector.describe(), Promise(FALSE_ALARMS)).criteria(), set(chosen)


def _percent(shares: list[bool]) -> str:
    return f"{100 * np.mean(shares):.1f}" if shares else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", help="a set with masks")
    parser.add_argument("--rendered", type=int, default=400, metavar="N", help="rendered pictures; 0 for none")
    parser.add_argument("--seed", type=int, default=900_030)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    detector = Detector()
    shipped = criteria_of(DEFAULT, detector.describe())
    lines = [
        "| set | thresholds | anomalous images not ok | pixel threshold | with a region | touching | "
        "overlap | normal ones with a region |",
        "|---|---|---|---|---|---|---|---|",
    ]
    try:
        if chosen.rendered:
            lines += rows("rendered", detector, rendered(chosen.rendered, chosen.seed), {"shipped": shipped})
            print("\n".join(lines[-2:]), flush=True)
        for spec in chosen.data:
            dataset = open_spec(spec)
            found, used = own(dataset, detector)
            criteria = {"shipped": shipped} | ({} if found is None else {"own": found})
            lines += rows(dataset.info.title, detector, of_dataset(dataset, used), criteria)
            print("\n".join(lines[-2 * len(criteria) :]), flush=True)
    except HeadclipError as error:
        raise SystemExit(f"error: {error}") from error
    text = "\n".join(lines) + "\n"
    write_atomically(chosen.out, f"`{shlex.join(['python', *sys.argv])}`\n\n{text}")


if __name__ == "__main__":
    main()
