r"""Move some files of a folder elsewhere, so that nothing is trained on them: chosen at random, the same for a seed.

    python scripts/hold_out.py runs/photographs-new runs/held-surfaces --count 240 --seed 18

Counts the pictures in all folders below; what is moved keeps its place below the other folder. Several pictures of one
thing stay together with `--together PATTERN`: those whose paths are the same without what the pattern finds are one.

    python scripts/hold_out.py runs/household runs/held-household --count 80 --seed 19 --together='-[0-9]+\.png$'
"""

from __future__ import annotations

import argparse
import random
import re
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
    parser.add_argument("--together", metavar="PATTERN", help="a regular expression")
    options = parser.parse_args()
    if options.held.exists():
        parser.error(f"{options.held} is there already; a second choice would take more files away")
    groups: dict[str, list[Path]] = {}
    for file in pictures_below(options.folder):
        path = file.relative_to(options.folder).as_posix()
        groups.setdefault(re.sub(options.together, "", path) if options.together else path, []).append(file)
    if not 0 < options.count < len(groups):
        what = "things" if options.together else "pictures"
        parser.error(f"{options.folder} has {len(groups)} {what}; --count has to be at least 1 and less than that")
    chosen = random.Random(options.seed).sample(list(groups.values()), options.count)
    for file in (file for group in chosen for file in group):
        place = options.held / file.relative_to(options.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)
    sys.stdout.write(f"{options.held}: {options.count} of {len(groups)}\n")


if __name__ == "__main__":
    main()
