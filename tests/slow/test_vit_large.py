"""The paper's backbone at its true size, with random weights: the command stays within bounded memory."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, known_architectures
from headclip.clip.tokenizer import ClipTokenizer
from headclip.clip.weights import save_backbone

pytestmark = pytest.mark.slow
MEASURED = """
import json, resource, subprocess, sys
status = subprocess.run([sys.executable, "-m", "headclip", *sys.argv[1:]]).returncode
print(json.dumps([status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    config = ClipConfig.load(known_architectures()["ViT-L-14-336"])
    backbone = Backbone(config, ClipTokenizer())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if value.dim() > 1:
                value.copy_(0.02 * torch.randn(value.shape, generator=generator))
            elif name.endswith("bias"):
                value.zero_()
    folder = tmp_path_factory.mktemp("large")
    save_backbone(backbone, folder)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_predict_at_518_px_within_6_gib(large, tmp_path, precision):
    image = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    command = ["predict", str(tmp_path / "image.png"), "--out", str(tmp_path / "run"), "--backbone", str(large)]
    command += ["--precision", precision, "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
    status, gibibytes = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert gibibytes < 6.0
    with (tmp_path / "run" / "results.csv").open() as handle:
        (row,) = csv.DictReader(handle)
    assert (row["status"], row["height"], row["width"]) == ("ok", "600", "800")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "518" in json.dumps(facts)


def test_export_to_onnx_within_10_gib(large, tmp_path):
    pytest.importorskip("onnxruntime")
    command = ["export", "--to", "onnx", "--out", str(tmp_path / "model.onnx"), "--backbone", str(large)]
    command += ["--check-images", "1"]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
    status, gibibytes = json.loads(done.stdout.splitlines()[-1])
    assert status == 0, done.stderr
    assert gibibytes < 10.0
    parity = json.loads((tmp_path / "model.onnx.json").read_text())["parity"]
    assert parity["ok"]
