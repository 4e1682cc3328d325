"""Reads the numbers that the official codes made on random weights (folder: GOLDEN_DIR, default tests/golden)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

VOCABULARY = 49408


def golden_dir() -> Path:
    return Path(os.environ.get("GOLDEN_DIR") or Path(__file__).parent / "golden")


def load(name: str) -> dict[str, torch.Tensor]:
    return load_file(golden_dir() / f"{name}.safetensors")


def metadata(name: str) -> dict[str, str]:
    with safe_open(golden_dir() / f"{name}.safetensors", "pt") as handle:
        return handle.metadata() or {}


def config() -> dict:
    return json.loads((golden_dir() / "config.json").read_text())


def load_clip_state() -> dict[str, torch.Tensor]:
    """Full fp32 state dict in OpenAI's layout; matrices are stored as exact float8, vectors as exact float16."""
    state = {key: value.float() for key, value in load("clip_state").items()}
    table = state.pop("token_embedding.table")
    state["token_embedding.weight"] = table[torch.arange(VOCABULARY) % len(table)].contiguous()
    return state
