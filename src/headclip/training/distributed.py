"""Several processes that train one method, started by torchrun: each takes its share of every batch.

torch's DistributedDataParallel fits, since the few parameters that train are all that it is shown: a method keeps the
frozen backbone outside its own. It averages gradients over the processes. The losses are means over images, so
that each process scales its own by the share that its images have in the whole batch: what comes out is the gradient
of the whole batch's loss, whatever the shares.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headclip.errors import HeadclipError, InputError
from headclip.training.batches import Batch
from headclip.training.losses import LossParts

PATIENCE = timedelta(minutes=30)  # to wait for a process that is alive: reading images may take long


class RankLostError(HeadclipError):
    """Another process of the run is gone."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this training has stopped, so this one stops too; what it said stands above, if it "
            "was not killed. The same command with --resume goes on from the last saved step, with any number of "
            "processes"
        )


@dataclass(frozen=True)
class Ranks:
    """Which of `count` processes this is, from 0; process 0 writes the files. A single process is one of one.

    device: where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, numbers: Sequence[int]) -> list[int]:
        """This process's part of a batch; a batch is dealt out in order, as evenly as it goes.

        >>> [Ranks(rank, 3).share([5, 8, 2, 9]) for rank in range(3)]
        [[5, 8], [2], [9]]
        """
        each, more = divmod(len(numbers), self.count)
        start = self.rank * each + min(self.rank, more)
        return list(numbers[start : start + each + (self.rank < more)])

    def sum(self, values: Tensor) -> Tensor:
        """The sum of each process's `values`, small and of one shape, on the CPU in double precision."""
        total = values.detach().to("cpu", torch.float64, copy=True)
        if self.count > 1:
            with group_errors():
                dist.all_reduce(total)
        return total

    def gather(self, content: bytes) -> list[bytes]:
        """The bytes that each process gave, in the order of the processes."""
        if self.count == 1:
            return [content]
        ours = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)
        with group_errors():
            lengths = torch.zeros(self.count, dtype=torch.int64)
            lengths[self.rank] = len(content)
            dist.all_reduce(lengths)
            room = max(1, int(lengths.max()))
            padded = torch.zeros(room, dtype=torch.uint8)
            padded[: len(ours)] = ours
            found = [torch.zeros(room, dtype=torch.uint8) for _ in range(self.count)]
            dist.all_gather(found, padded)
        return [part[: int(length)].numpy().tobytes() for part, length in zip(found, lengths, strict=True)]

    def parallel(self, module: nn.Module) -> nn.Module:
        """The module, so that `backward` of what it returns averages gradients over all processes.

        Parameters become those of process 0. One that this process did not use takes what the others found.
        """
        if self.count == 1:
            return module
        from torch.nn.parallel import DistributedDataParallel

        with group_errors():
            # images without masks leave the head weights out, and other processes may have others
            return DistributedDataParallel(module, find_unused_parameters=True)


ALONE = Ranks()


@contextmanager
def group_errors() -> Iterator[None]:
    """Turn what torch says of a lost connection into an error that says what to do."""
    try:
        yield
    except RuntimeError as error:  # a lost connection is often nothing more specific
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in ("gloo", "Gloo", "NCCL")):
            raise
        logging.getLogger(__name__).debug("the process group failed", exc_info=error)
        raise RankLostError from error


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarted() -> bool:
    """Whether torchrun starts the same command again, after a process was lost (its --max-restarts)."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


@contextmanager
def process_group(device: torch.device) -> Iterator[Ranks]:
    """This process's place among those that torchrun started; outside torchrun, a single one.

    Args:
        device: of CUDA devices, each process of a machine takes its own.

    Raises:
        InputError: more processes than CUDA devices on this machine, or the processes did not find one another.
    """
    if not launched():
        yield Ranks(device=device)
        return
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if device.type == "cuda":
        local, devices = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
        if local >= devices:
            raise InputError(
                f"process {local + 1} of this machine finds {devices} CUDA devices; "
                f"use torchrun --nproc-per-node {devices}, or --device cpu"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    try:
        # what is on the CPU, counts and names, goes over gloo in both cases
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the {count} processes of this training did not find one another: {' '.join(str(error).split())}; "
            "start them with torchrun"
        ) from error
    if rank:
        logging.getLogger("headclip").setLevel(logging.ERROR)  # process 0 says the same
    try:
        yield Ranks(rank, count, device)
    finally:
        dist.destroy_process_group()


class Objective(nn.Module):
    """The losses of a batch as a module over what trains, which is how DistributedDataParallel wants them."""

    def __init__(self, parameters: Iterable[nn.Parameter], losses: Callable[[Batch], LossParts]) -> None:
        super().__init__()
        self.learnt, self.losses = nn.ParameterList(parameters), losses

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The total, the pixel part and the image part, as `LossParts` has them."""
        found = self.losses(batch)
        return found.total, found.local, found.image
