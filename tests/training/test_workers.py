"""Processes that render beside a training: they leave signals to it, and the processor as well."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from headclip.training.pretrain_data import RenderStream, stream
from headclip.training.workers import start_in_gaps


class Priority(IterableDataset[int]):
    """What each worker's priority is."""

    def __iter__(self):
        yield os.nice(0)


@pytest.mark.skipif(not hasattr(os, "nice"), reason="priorities are POSIX's")
def test_workers_run_at_the_lowest_priority_and_the_training_at_its_own():
    before = os.nice(0)
    loader = DataLoader(
        Priority(), batch_size=None, num_workers=2, multiprocessing_context="fork", worker_init_fn=start_in_gaps
    )
    assert list(loader) == [19, 19]
    assert os.nice(0) == before


def test_a_worker_outlives_the_signals_that_end_its_parent():
    code = (
        "import os, signal\n"
        "from headclip.training.workers import start_in_gaps\n"
        "start_in_gaps(0)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('alive')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "alive", done.stderr


def test_two_workers_render_the_batches_of_none():
    def rendered(workers: int) -> list[torch.Tensor]:
        data = RenderStream(
            seed=5, batch_size=2, early=(2, [(48, 48)]), late_sizes=[(64, 48)], start=1, stop=5, defect_rate=0.5
        )
        return [batch.images for batch in stream(data, workers)]

    alone, beside = rendered(0), rendered(2)
    assert [tuple(batch.shape[-2:]) for batch in alone] == [(48, 48), (64, 48), (64, 48), (64, 48)]
    assert all(torch.equal(one, other) for one, other in zip(alone, beside, strict=True))
