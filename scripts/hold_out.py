"""Move some files of a folder elsewhere, so that nothing is trained on them: chosen at random, the same for a seed.

    python scripts/hold_out.py runs/photographs-new runs/held-surfaces --count 240 --seed 18

Counts the pictures in all folders below; what is moved keeps its place below the other folder.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from headclip.data.synthetic.photographs import pictures_below


def main() -> None:
    """Choose, move, and say how many."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("held", type=Path, help="where they go: a new folder")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.held.exists():
        parser.error(f"{options.held} is there already; a second choice would take more files away")
    files = pictures_below(options.folder)
    if not 0 < options.count < len(files):
        parser.error(f"{options.folder} has {len(files)} pictures; --count has to be at least 1 and less than that")
    for file in random.Random(options.seed).sample(files, options.count):
        place = options.held / file.relative_to(options.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    sys.stdout.write(f"{options.held}: {options.count} of {len(files)}\n")


if __name__ == "__main__":
    main()
