"""Checkpoints, backbones, states of training, kept features, recipes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzzing.mutate import damage_bytes, damage_json, damage_json_lines, damage_safetensors
from fuzzing.targets import Target, fresh, rewrite_zip


def make(folder: Path) -> list[Target]:
    """The targets; their files are made with a tower of two layers."""
    import torch

    from headclip.clip.backbone import Backbone
    from headclip.clip.config import ClipConfig, TextConfig, VisionConfig
    from headclip.clip.files import read_state
    from headclip.clip.initialise import initialise
    from headclip.clip.layouts import to_huggingface
    from headclip.clip.tokenizer import ClipTokenizer
    from headclip.clip.weights import load_backbone, save_backbone
    from headclip.methods import create_method
    from headclip.methods.checkpoint import load_checkpoint, save_checkpoint

    torch.set_num_threads(1)
    fresh(folder)
    config = ClipConfig("tiny", 16, VisionConfig(64, 2, 1, 14, 28), TextConfig(64, 1, 1, vocab_size=600))
    save_backbone(initialise(Backbone(config, ClipTokenizer(600)), 0), folder / "tiny")
    backbone = load_backbone(folder / "tiny")
    method = create_method("headclip", backbone)
    save_checkpoint(folder / "sound.safetensors", method)
    checkpoint = (folder / "sound.safetensors").read_bytes()

    def as_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
        def read_one(content: bytes) -> object:
            (folder / name).write_bytes(content)
            return read(folder / name)

        return read_one

    prompts = {"ctx_pos": torch.zeros(1, 1, 12, 64), "ctx_neg": torch.zeros(1, 1, 12, 64)}
    official = _saved({"prompt_learner": prompts})
    weights = (folder / "tiny" / "model.safetensors").read_bytes()
    plain = _saved({"state_dict": to_huggingface(backbone.state_dict())})
    return [
        Target("checkpoint", [checkpoint], (damage_safetensors,),
               as_file("damaged.safetensors", lambda path: load_checkpoint(path, backbone))),
        Target("official checkpoint", [official], (damage_bytes, rewrite_zip),
               as_file("damaged.pth", lambda path: load_checkpoint(path, backbone))),
        Target("weights in zip", [plain, _scripted()], (damage_bytes, rewrite_zip), as_file("damaged.pt", read_state)),
        _folder_target(folder, "model.safetensors", "backbone weights", damage_safetensors, weights),
        _folder_target(folder, "config.json", "backbone config", damage_json, None),
        _folder_target(folder, "vocab.json", "backbone vocabulary", damage_json, None),
        _folder_target(folder, "merges.txt", "backbone merges", damage_bytes, None),
        Target("training state", [_state(method)], (damage_bytes, rewrite_zip),
               as_file("damaged.state", _restorer(method))),
        _recipe_target(folder),
        *_cache_targets(folder),
    ]  # fmt: skip


def _saved(content: object) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _scripted() -> bytes:
    """A TorchScript archive."""
    import torch

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))), buffer)
    return buffer.getvalue()


def _folder_target(folder: Path, name: str, title: str, damage: Callable, content: bytes | None) -> Target:
    """A backbone folder with one of its files damaged."""
    import shutil

    from headclip.clip.weights import load_backbone

    copy = folder / title.replace(" ", "-")
    shutil.copytree(folder / "tiny", copy)
    sound = content or (copy / name).read_bytes()

    def read(damaged: bytes) -> None:
        (copy / name).unlink(missing_ok=True)  # the last one may be mapped into memory still
        (copy / name).write_bytes(damaged)
        found = load_backbone(copy)
        if found.tokenizer is not None:
            found.tokenizer(["a photo of a damaged object"], truncate=True)

    return Target(title, [sound], (damage, damage, damage_bytes), read)


class _Pictures:
    """A training set of two images, of which only the size is asked."""

    def __len__(self) -> int:
        return 2

    def describe(self) -> dict[str, object]:
        return {"name": "two"}

    def __getitem__(self, index: int) -> object:
        import torch

        from headclip.training.sets import TrainingItem

        return TrainingItem(torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(32, 32, dtype=torch.bool), 0, True)


def _trainer(method: object) -> object:
    from headclip.training.train_config import TrainConfig
    from headclip.training.trainer import Trainer

    return Trainer(method, _Pictures(), TrainConfig(epochs=2))  # type: ignore[arg-type]


def _state(method: object) -> bytes:
    return _saved(_trainer(method).state())  # type: ignore[attr-defined]


def _restorer(method: object) -> Callable[[Path], object]:
    return lambda path: _trainer(method).restore(path)  # type: ignore[attr-defined]


def _recipe_target(folder: Path) -> Target:
    from headclip.training.pretrain_config import read_recipe

    recipe = {"images": 64, "batch_size": 4, "rate": 1e-3, "early_sizes": [[42, 42]], "late_sizes": [[42, 56]],
              "teacher_blocks": [1, 2], "precision": "fp32", "seed": 3}  # fmt: skip

    def read(content: bytes) -> None:
        (folder / "recipe.json").write_bytes(content)
        found = read_recipe(folder / "recipe.json")
        assert found.steps >= 1

    return Target("pretraining recipe", [json.dumps(recipe).encode()], (damage_json,), read)


def _cache_targets(folder: Path) -> list[Target]:
    """Rows of kept features: whatever is damaged, a row is the one that was written, or counts as missing."""
    from headclip.training.feature_files import FileRows

    rng = np.random.default_rng(0)
    rows = {f"key {number}": rng.integers(0, 255, 96, dtype=np.uint8) for number in range(6)}
    FileRows(folder / "sound", 96).write(rows)
    sound = {ending: (folder / f"sound{ending}").read_bytes() for ending in (".rows", ".index")}

    def reader(ending: str) -> Callable[[bytes], None]:
        def read(content: bytes) -> None:
            for other, whole in sound.items():
                (folder / f"cache{other}").unlink(missing_ok=True)
                (folder / f"cache{other}").write_bytes(content if other == ending else whole)
            kept = FileRows(folder / "cache", 96)
            for key, row in rows.items():
                assert not kept.has(key) or np.array_equal(kept.read(key), row), f"{key} is another row"
            kept.write(rows)
            for key, row in rows.items():
                assert kept.has(key), f"{key} was not written again"
                assert np.array_equal(kept.read(key), row), f"{key} is another row after writing"

        return read

    return [
        Target("kept features", [sound[".rows"]], (damage_bytes,), reader(".rows")),
        Target("index of kept features", [sound[".index"]], (damage_json_lines,), reader(".index")),
    ]
