"""Several processes share the maps; their states merge to what a single one would have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "metrics.py"


def figures_of(workers: int) -> list[str]:
    """The lines with figures, to the last printed digit."""
    sizes = ["--maps", "7", "--size", "90", "--subset", "0", "--workers", str(workers)]
    done = subprocess.run([sys.executable, str(SCRIPT), *sizes], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if line.startswith("pixel_")]


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not part of this copy")
def test_the_number_of_processes_changes_no_figure() -> None:
    alone, shared = figures_of(1), figures_of(3)
    assert len(alone) == 6
    assert shared == alone
