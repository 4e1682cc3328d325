"""CLIP Surgery's tokens, feature surgery and maps against the official code on random weights."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

import golden_io
from headclip.methods.ensembles import sentence_vectors
from headclip.methods.surgery import feature_surgery, similarity_maps, surgery_tokens
from parity_models import golden_backbone, pixels

pytestmark = pytest.mark.parity
CONFIG = golden_io.config()
SIZES = CONFIG["eval_sizes"]
close = torch.testing.assert_close


@pytest.fixture(scope="module")
def backbone():
    return golden_backbone()


@pytest.mark.parametrize("size", SIZES)
def test_tokens(backbone, size):
    golden = golden_io.load("clip_surgery")[f"s{size}.tokens"]
    close(surgery_tokens(backbone, pixels(size)), golden, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_feature_surgery_and_maps(backbone, size):
    golden = golden_io.load("clip_surgery")
    text = golden["text_features"]
    unit = F.normalize(golden[f"s{size}.tokens"], dim=-1)
    values = feature_surgery(unit, text)
    close(values, golden[f"s{size}.feature_surgery"], atol=1e-5, rtol=0)
    grid = (size // CONFIG["patch"],) * 2
    close(similarity_maps(values, grid, (size, size)), golden[f"s{size}.similarity_map"], atol=2e-5, rtol=0)


def test_a_text_alone_has_nothing_left(backbone):
    """What all texts share is taken away; of one text that is everything."""
    text = F.normalize(sentence_vectors(backbone, json.loads(golden_io.metadata("clip_surgery")["texts"])[:1]), dim=-1)
    values = feature_surgery(F.normalize(surgery_tokens(backbone, pixels(SIZES[0])), dim=-1), text)
    close(values, torch.zeros_like(values))
