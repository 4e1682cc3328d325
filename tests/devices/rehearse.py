"""The same work on the CPU and on a device that is not there, side by side: `rehearse.py GROUP FOLDER`.

Prints as JSON how far the results lie apart, by case, or the error. A process of its own, for the device is known to
the whole of it.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from devices import pretend
from headclip.clip.backbone import Backbone
from headclip.clip.tokenizer import ClipTokenizer
from headclip.inference import detector as detecting
from headclip.inference.detector import Detector
from headclip.inference.tiles import TiledDetector
from headclip.methods import TrainableMethod, create_method, list_methods
from headclip.methods.base import method_class
from headclip.training.files import save_torch
from headclip.training.pretrain import Pretrainer
from headclip.training.pretrain_config import PretrainConfig
from headclip.training.sets import SyntheticTrainingSet
from headclip.training.teacher import Teacher
from headclip.training.train_config import TrainConfig
from headclip.training.trainer import Trainer
from tiny_clip import make_backbone, make_config

SIZE = 42
CPU = torch.device("cpu")
Values = list[np.ndarray]
Work = Callable[[torch.device], Values]


def on_cpu(values: dict[str, Tensor]) -> Values:
    return [value.detach().cpu().float().numpy() for value in values.values()]


def judging(**options: Any) -> Work:
    """Maps and scores of three pictures."""
    rng = np.random.default_rng(0)
    pictures = [np.repeat(np.repeat(rng.integers(0, 256, (8, 12, 3), np.uint8), 8, 0), 8, 1) for _ in range(3)]
    for name in ("references", "peers"):
        if name in options:
            options[name] = pictures[: options[name]]
    tiled = options.pop("tiled", False)

    def work(device: torch.device) -> Values:
        detecting.choose_device = lambda name: device  # type: ignore[assignment]
        given = {"backbone": make_backbone(make_config()), "image_size": SIZE, **options}
        detector: Any = Detector(**given)
        found = (TiledDetector(detector, overlap=0.2) if tiled else detector).predict(pictures)
        return [value for one in found for value in (one.anomaly_map, np.array([one.score]))]

    return work


def detectors(folder: Path) -> dict[str, Work]:
    methods: dict[str, Work] = {name: judging(method=name) for name in list_methods()}
    return methods | {
        "embedded": judging(backbone="embedded", image_size=112),
        "refiner": judging(method="headclip", settings={"refiner": 8}),
        "references": judging(references=2),
        "references of winclip": judging(method="winclip", references=1),
        "peers": judging(peers=3),
        "tiles": judging(tiled=True),
    }


def training(folder: Path) -> dict[str, Work]:
    data = SyntheticTrainingSet(seed=1, count=6, size=SIZE)

    def case(name: str, resumed: bool = False, settings: dict[str, Any] | None = None, **changes: Any) -> Work:
        def work(device: torch.device) -> Values:
            def trainer() -> Trainer:
                torch.manual_seed(0)
                method = create_method(name, make_backbone(make_config()).to(device), settings or {})
                assert isinstance(method, TrainableMethod)
                config = TrainConfig(**{"epochs": 2, "batch_size": 3, "rate": 1e-3, "seed": 3, **changes})
                return Trainer(method.to(device), data, config)

            made, out = trainer(), folder / f"{name}.safetensors"
            if resumed:
                made.step(next(iter(made.loader(0))))
                made.batch += 1
                state = folder / f"{device.type}.state"
                save_torch(made.state(), state)
                made = trainer()
                made.restore(state)
            made.run(out)
            return on_cpu(made.method.trainable())

        return work

    trainable = [name for name in list_methods() if issubclass(method_class(name), TrainableMethod)]
    return {name: case(name) for name in trainable} | {
        "refiner": case("headclip", settings={"refiner": 8}),
        "kept features": case("headclip", keep_features=True),
        "kept features on disk": case("headclip", keep_features=str(folder / "kept"), features_dtype="int8"),
        "resumed": case("headclip", resumed=True),
    }


def pretraining(folder: Path) -> dict[str, Work]:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    Dinov2Model(Dinov2Config(**shape)).save_pretrained(folder / "teacher")

    def case(precision: str, taught: bool) -> Work:
        def work(device: torch.device) -> Values:
            sizes = {"early_sizes": ((42, 42),), "late_sizes": ((42, 56),)}
            settings = {"images": 12, "batch_size": 4, "warmup": 1, "precision": precision, **sizes}
            if taught:
                settings["teacher_blocks"] = (1, 3)

            def pretrainer() -> Pretrainer:
                torch.manual_seed(0)
                config = make_config("gelu")
                backbone = Backbone(config, ClipTokenizer(config.text.vocab_size if config.text else 0))
                teacher = Teacher(folder / "teacher", (1, 3), torch.float32) if taught else None
                return Pretrainer(backbone, PretrainConfig(**settings), teacher=teacher, device=str(device))

            place = folder / f"{device.type}-{precision}-{taught}"
            place.mkdir()
            first = pretrainer()
            first.run(place, workers=0, stop_seconds=0)
            second = pretrainer()
            second.restore(place / "state.pt")
            second.run(place, workers=0)
            return on_cpu(second.averaged_backbone().state_dict())

        return work

    return {"bf16": case("bf16", False), "fp32 with a teacher": case("fp32", True)}


def mistakes(folder: Path) -> dict[str, Work]:
    """Each must be refused."""
    return {
        "a mixture": lambda device: [(torch.ones(3, device=device) + torch.ones(3)).cpu().numpy()],
        "a parameter left behind": lambda device: [
            torch.nn.Linear(2, 2)(torch.ones(1, 2, device=device)).detach().cpu().numpy()
        ],
        "numpy": lambda device: [torch.ones(3, device=device).numpy()],
        "a generator": lambda device: [torch.ones(3, device=device).normal_(generator=torch.Generator()).cpu().numpy()],
    }


def apart(work: Work, device: torch.device) -> float | str:
    """The largest difference, or what went wrong on the device."""
    expected = work(CPU)
    try:
        found = work(device)
    except Exception as error:
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        ours = [place for place in places if "headclip" in place] or places
        return f"{ours[-1]}: {str(error)[:300]}"
    return max(float(np.abs(one - other).max(initial=0.0)) for one, other in zip(expected, found, strict=True))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases = {one.__name__: one for one in (detectors, training, pretraining, mistakes)}[sys.argv[1]](Path(sys.argv[2]))
    device = pretend.install()
    sys.stdout.write(json.dumps({name: apart(work, device) for name, work in cases.items()}))
