"""Whatever runs on the CPU runs on an accelerator as well: its tensors stay together, and the results are the same.

What asks for CUDA itself (free memory, bf16, NCCL) is not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MOST = {"detectors": 1e-4, "training": 1e-3, "pretraining": 1e-2}  # differences; optimisers enlarge those of rounding


def rehearse(group: str, folder: Path) -> dict[str, float | str]:
    words = [sys.executable, str(Path(__file__).with_name("rehearse.py")), group, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("group", list(MOST))
def test_results_are_those_of_the_cpu(group, tmp_path):
    if group == "pretraining":
        pytest.importorskip("transformers")
    found = rehearse(group, tmp_path)
    assert {name: apart for name, apart in found.items() if isinstance(apart, str)} == {}
    assert {name: apart for name, apart in found.items() if apart > MOST[group]} == {}


def test_what_an_accelerator_refuses_is_refused(tmp_path):
    found = rehearse("mistakes", tmp_path)
    assert all(isinstance(said, str) and "the device pretend" in said for said in found.values()), found
