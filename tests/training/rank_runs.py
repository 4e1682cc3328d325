"""Small trainings by the processes that torchrun starts, or by one: `rank_runs.py FOLDER`."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import torch

from headclip.methods import create_method
from headclip.training.distributed import ALONE, Ranks, process_group
from headclip.training.sets import SyntheticTrainingSet, TrainingItem
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer, state_path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_clip import make_backbone, make_config

SIZE = 42
COUNT = 10  # with batches of 3: the last batch has a single image, which leaves one of two processes without any
KINDS = {  # method, settings of the training, whether features are kept
    "plain": ("headclip", {}, False),
    "kept": ("headclip", {}, True),
    "kept_int8": ("anomalyclip", {"features_dtype": "int8"}, True),
    "inside": ("adaclip", {}, False),
}


class StopError(Exception):
    """Ends a run in the middle."""


class SomeUnmarked:
    """Rendered images; of those with defects, most are not marked, so that many batches have masks in one half."""

    def __init__(self) -> None:
        self.rendered = SyntheticTrainingSet(seed=1, count=COUNT, size=SIZE)

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> TrainingItem:
        item = self.rendered[index]
        item.has_mask = index % 4 == 1
        return item

    def describe(self) -> dict[str, object]:
        return {"name": "some unmarked", "images": COUNT}


def trainer(kind: str, folder: Path, ranks: Ranks = ALONE) -> Trainer:
    name, changes, keeps = KINDS[kind]
    backbone = make_backbone(make_config())
    forward = backbone.vision.forward
    backbone.vision.passes = []  # type: ignore[assignment]
    backbone.vision.forward = lambda x, *rest: backbone.vision.passes.append(len(x)) or forward(x, *rest)  # type: ignore
    method = create_method(name, backbone, {"sigma": 1.0, "seed": 3})
    keep = folder / f"{kind}.features" if keeps else False
    config = TrainConfig(epochs=3, batch_size=3, rate=1e-3, keep_features=keep, **changes)
    return Trainer(method, SomeUnmarked(), config, ranks)


def begin(kind: str, out: Path, ranks: Ranks = ALONE) -> None:
    """A run that stops in the middle of the second epoch."""
    run = trainer(kind, out.parent, ranks)

    def stop(progress: object) -> None:
        if run.epoch == 2 and run.batch == 3:
            raise StopError

    with suppress(StopError):
        run.run(out, save_seconds=-1, progress=stop)


def resume(kind: str, out: Path, ranks: Ranks = ALONE) -> Trainer:
    run = trainer(kind, out.parent, ranks)
    run.restore(state_path(out))
    run.run(out)
    return run


def main(folder: Path) -> None:
    with process_group(torch.device("cpu")) as ranks:
        for kind in KINDS:
            run = trainer(kind, folder, ranks)
            run.run(folder / f"{kind}.safetensors")
            found = {"method": run.method.state_dict(), "passes": run.method.backbone.vision.passes}
            torch.save(found, folder / f"{kind}.{ranks.rank}.pt")
        begin("kept", folder / "two.safetensors", ranks)
        resume("plain", folder / "one.safetensors", ranks)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
