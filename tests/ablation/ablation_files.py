"""A small ablation: a CLIP of three layers, eight rendered images to train on, two categories to test on."""

from __future__ import annotations

from pathlib import Path

from evaluation.evaluate_files import write_set
from headclip.ablation.definitions import find_ablation
from headclip.ablation.judging import JudgingSettings
from headclip.ablation.models import TrainingData
from headclip.ablation.run import AblationOptions, ablate
from headclip.data.datasets import open_dataset
from tiny_clip import make_backbone, make_config

SIZE = 42


def options(**changes) -> AblationOptions:
    given = {
        "data": TrainingData("synthetic", 8, 1),
        "seeds": (1, 2),
        "train": {"epochs": 1, "batch_size": 4, "rate": 1e-2},
        "settings": {"sigma": 1.0},
        "image_size": SIZE,
        "figures": False,
        "judging": JudgingSettings(device="cpu"),
    }
    return AblationOptions(**{**given, **changes})


def datasets(root: Path, count: int = 1):
    made = [write_set(root / f"set{number}", normal=3, defects=3, seed=7 * number) for number in range(count)]
    return [open_dataset("folder", path) for path in made]


def run(name, out: Path, data, only=(), backbone=None, progress=None, data_=None, **changes):
    """data_: what to train on instead of rendered images."""
    changes |= {} if data_ is None else {"data": data_}
    shown = {} if progress is None else {"progress": progress}
    return ablate(
        find_ablation(name, only), backbone or make_backbone(make_config()), data, out, options(**changes), **shown
    )
