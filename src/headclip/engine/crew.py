"""The part that knows Ray: a cluster, a pool of actors that hold the model, and what happens when one of them dies.

Ray Data streams chunks to the actors, starts more of them where `--actors MIN:MAX` allows it, restarts those that
die and gives their chunks to others. Its promise is that a chunk is tried again, not that it comes back once and
only once; that is seen to here: results are counted by chunk, second copies are dropped, and images of chunks that
never come back are tried one by one, until each has a record, be it that it kills whoever touches it.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from headclip.engine.chunks import Chunk, FileRef, Result, plan
from headclip.engine.workers import Worker
from headclip.errors import HeadclipError, InputError

_RETRIES = 2  # of a chunk, when its actor dies; each costs as long as a model takes to load
_STORE = 1_000_000_000  # bytes of shared memory for a cluster of our own
_MOST_BLOCKS = 20_000  # Ray keeps track of each one
LOST = "the worker died each time it judged this image"


class CrewError(HeadclipError):
    """The cluster cannot do the work."""


@dataclass(frozen=True)
class Crew:
    """Who works. least, most: actors; cpus, gpus: for each of them; gpus None takes one where the cluster has any.

    Raises:
        InputError: nonsensical numbers.
    """

    least: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise InputError(f"--actors {self.least}:{self.most}: write N, or MIN:MAX with MIN from 1 to MAX")
        if self.cpus <= 0 or (self.gpus or 0) < 0:
            raise InputError("an actor needs more than 0 processors, and 0 or more GPUs")

    @classmethod
    def parse(cls, actors: str, cpus: float = 1.0, gpus: float | None = None) -> Crew:
        """From "4", or from "1:8" for a pool that grows and shrinks with the cluster.

        Raises:
            InputError: it is not of that form.
        """
        parts = actors.split(":")
        if len(parts) > 2 or not all(part.strip().isdecimal() for part in parts):
            raise InputError(f"--actors {actors}: write N, or MIN:MAX")
        return cls(int(parts[0]), int(parts[-1]), cpus, gpus)


def require_ray() -> Any:
    """The module `ray`, with Ray Data.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere unless the user asks for it
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"--engine ray needs Ray ({error}); pip install 'headclip[ray]'") from None
    return ray


@contextmanager
def cluster(crew: Crew) -> Iterator[Crew]:
    """Join the cluster that RAY_ADDRESS names, or one that runs in this process already, else start one here.

    Yields:
        The crew with its GPUs decided.

    Raises:
        InputError: Ray is not installed.
        CrewError: no cluster, or one without the GPUs asked for.
    """
    ray = require_ray()
    ours = not ray.is_initialized()
    if ours:
        _start(ray, crew)
    try:
        gpus = float(ray.cluster_resources().get("GPU", 0.0))
        if ours and crew.gpus and gpus < crew.gpus and not os.environ.get("RAY_ADDRESS"):  # others may grow
            raise CrewError(
                f"--gpus-per-actor {crew.gpus:g}: this machine has {gpus:g} GPU(s); "
                "leave the option out to work on processors, or name a cluster in RAY_ADDRESS"
            )
        yield replace(crew, gpus=(1.0 if gpus else 0.0) if crew.gpus is None else crew.gpus)
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any, crew: Crew) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if os.environ.get("RAY_ADDRESS"):
            ray.init(**quiet)
            return
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is said by `judge_all`
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = math.ceil(crew.most * crew.cpus)  # one's own machine may be asked for more than it has cores
        ray.init(
            address="local",
            num_cpus=max(cores, wanted),
            include_dashboard=False,
            object_store_memory=_STORE,
            **quiet,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CrewError(f"Ray does not start: {_line(error)}; see RAY_ADDRESS, and `ray status` there") from error


def ask_one(crew: Crew, question: Callable[[], Any]) -> tuple[Any, list[str]]:
    """The answer of one worker, with the resources of an actor, and the warnings that went with it.

    Raises:
        HeadclipError: as `question` raises it.
        CrewError: it failed otherwise.
    """
    ray = require_ray()
    packed = ray.cloudpickle.dumps(question)

    def answer(content: bytes) -> bytes:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                found: Any = pickle.loads(content)()
            except HeadclipError as error:
                found = error
        said = [str(item.message) for item in caught if item.category is UserWarning]
        return pickle.dumps((found, said))

    task = ray.remote(num_cpus=crew.cpus, num_gpus=crew.gpus or 0, max_retries=2)(answer)
    try:
        found, said = pickle.loads(ray.get(task.remote(packed)))
    except ray.exceptions.RayError as error:
        raise CrewError(f"a worker cannot load the model: {_line(error)}") from error
    if isinstance(found, HeadclipError):
        raise found
    return found, said


def judge_all(
    crew: Crew,
    make_worker: Callable[[], Worker],
    files: Sequence[FileRef],
    batch_size: int,
    on_lost: Callable[[FileRef, str], None],
) -> Iterator[Result]:
    """Have all files judged, in any order of chunks; every file is in one result, or given to `on_lost`.

    Raises:
        CrewError: the workers cannot start, or cannot write what they make.
    """
    chunks = plan(files, batch_size, crew.most)
    left = {chunk.number: chunk for chunk in chunks}
    reasons: dict[str, str] = {}
    yield from _round(crew, make_worker, chunks, left, reasons)
    alone = [ref for chunk in left.values() for ref in chunk.files]
    if alone:  # one by one: of a chunk that kills its worker, all images but the guilty one are judged
        singles = [Chunk(len(chunks) + number, (ref,)) for number, ref in enumerate(alone)]
        left = {chunk.number: chunk for chunk in singles}
        yield from _round(crew, make_worker, singles, left, reasons)
    for chunk in left.values():
        for ref in chunk.files:
            on_lost(ref, reasons.get(ref.name, LOST))


def _round(
    crew: Crew,
    make_worker: Callable[[], Worker],
    chunks: Sequence[Chunk],
    left: dict[int, Chunk],
    reasons: dict[str, str],
) -> Iterator[Result]:
    """One pass of Ray Data over the chunks; `left` loses those that came back."""
    for result in _stream(crew, make_worker, chunks):
        if result.fatal is not None:
            raise CrewError(result.fatal)
        chunk = left.get(result.number)
        if chunk is None:
            continue  # a second copy, of a chunk that was judged twice
        if result.error is not None:
            reasons.update((ref.name, result.error) for ref in chunk.files)
            continue
        del left[result.number]
        yield result


class _Actor:
    """What Ray Data keeps alive: the worker with its model."""

    def __init__(self, packed: bytes) -> None:
        self._work: Worker = pickle.loads(packed)()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"result": [pickle.dumps(self._work(pickle.loads(content))) for content in batch["chunk"]]}


def _stream(crew: Crew, make_worker: Callable[[], Worker], chunks: Iterable[Chunk]) -> Iterator[Result]:
    ray = require_ray()
    rows = [{"chunk": pickle.dumps(chunk)} for chunk in chunks]
    if not rows:
        return
    most = min(crew.most, len(rows))
    with _ray_data_settings():
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MOST_BLOCKS)).map_batches(
            _Actor,
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(min_size=min(crew.least, most), max_size=most),
            fn_constructor_args=(ray.cloudpickle.dumps(make_worker),),
            num_cpus=crew.cpus,
            num_gpus=crew.gpus or 0,
            ray_remote_args_fn=_actor_options,
        )
        try:
            for row in data.iter_rows():
                yield pickle.loads(row["result"])
        except ray.exceptions.RayError as error:
            raise CrewError(f"the workers stopped: {_line(error)}; what was judged is kept, see --resume") from error


def _actor_options() -> dict[str, int]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


@contextmanager
def _ray_data_settings() -> Iterator[None]:
    """Our own progress instead of Ray's, and a chunk without a result is not the end."""
    from ray.data import DataContext

    context = DataContext.get_current()
    ours = {"enable_progress_bars": False, "print_on_execution_start": False, "max_errored_blocks": -1}
    before = {name: getattr(context, name) for name in ours if hasattr(context, name)}
    loggers = [logging.getLogger(name) for name in ("ray.data", "ray")]
    levels = [logger.level for logger in loggers]
    for name in before:
        setattr(context, name, ours[name])
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _line(error: BaseException) -> str:
    """The last line of what Ray says, which names the cause; the rest is a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:400]
