"""Processes that render beside a training: they leave signals to it, and the processor as well."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def printed(code: str) -> str:
    """What a program prints, in a process of its own: workers are forked of it, and signals sent to it."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="priorities are POSIX's")
def test_workers_run_at_the_lowest_priority_and_the_training_at_its_own():
    code = (
        "import os\n"
        "from torch.utils.data import DataLoader, IterableDataset\n"
        "from headclip.training.workers import start_in_gaps\n"
        "class Priority(IterableDataset):\n"
        "    def __iter__(self):\n"
        "        yield os.nice(0)\n"
        "before = os.nice(0)\n"
        "settings = {'num_workers': 2, 'multiprocessing_context': 'fork', 'worker_init_fn': start_in_gaps}\n"
        "print(list(DataLoader(Priority(), batch_size=None, **settings)), os.nice(0) == before)\n"
    )
    assert printed(code) == "[19, 19] True"


def test_a_worker_outlives_the_signals_that_end_its_parent():
    code = (
        "import os, signal\n"
        "from headclip.training.workers import start_in_gaps\n"
        "start_in_gaps(0)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('alive')\n"
    )
    assert printed(code) == "alive"


def test_two_workers_render_the_batches_of_none():
    code = (
        "import torch\n"
        "from headclip.training.pretrain_data import RenderStream, stream\n"
        "def rendered(workers):\n"
        "    sizes = {'early': (2, [(48, 48)]), 'late_sizes': [(64, 48)]}\n"
        "    data = RenderStream(seed=5, batch_size=2, start=1, stop=5, defect_rate=0.5, **sizes)\n"
        "    return [batch.images for batch in stream(data, workers)]\n"
        "alone, beside = rendered(0), rendered(2)\n"
        "print([tuple(batch.shape[-2:]) for batch in alone])\n"
        "print([torch.equal(one, other) for one, other in zip(alone, beside, strict=True)])\n"
    )
    assert printed(code).splitlines() == ["[(48, 48), (64, 48), (64, 48), (64, 48)]", str([True] * 4)]
