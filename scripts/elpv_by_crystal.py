"""Image AUROC on ELPV apart for cells of one crystal and of many, as the dataset's own list has them.

headclip evaluate --data elpv=data-pypi/elpv_dataset --out runs/elpv
python scripts/elpv_by_crystal.py runs/elpv/scores.csv data-pypi/elpv_dataset/data/labels.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from headclip.metrics.image import image_metrics


def crystals(labels: Path) -> dict[str, str]:
    """Name of each image: "mono" or "poly"."""
    rows = (line.split() for line in labels.read_text().splitlines() if line.strip())
    return {Path(name).name: kind for name, _, kind in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, help="scores.csv of an evaluation")
    parser.add_argument("labels", type=Path, help="labels.csv of the package elpv-dataset")
    args = parser.parse_args()
    for file in (args.scores, args.labels):
        if not file.is_file():
            parser.error(f"{file} is not there; the commands above say where both files come from")
    kinds = crystals(args.labels)
    with args.scores.open(newline="") as scores:
        rows = [row for row in csv.DictReader(scores) if Path(row["path"]).name in kinds and row["status"] == "ok"]
    for kind in sorted({kinds[Path(row["path"]).name] for row in rows}):
        some = [row for row in rows if kinds[Path(row["path"]).name] == kind]
        figures = image_metrics([float(row["score"]) for row in some], [int(row["label"]) for row in some])
        sys.stdout.write(f"{kind}: {len(some)} cells, image AUROC {100 * figures['image_auroc']:.1f}\n")


if __name__ == "__main__":
    main()
