"""Put the text vectors into checkpoints that were written without them; what was learnt stays as it is.

python scripts/keep_text.py src/headclip/clip/embedded/headclip.safetensors
python scripts/keep_text.py mine.safetensors --backbone ViT-L-14-336
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headclip.clip.weights import load_backbone
from headclip.methods.checkpoint import add_text_vectors, learnt_hash


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--backbone", default="embedded", help="on which all of them were trained")
    options = parser.parse_args()
    backbone = load_backbone(options.backbone)
    for path in options.checkpoints:
        before = learnt_hash(path)
        info = add_text_vectors(path, backbone)
        kept = "text vectors kept" if info.text else f"{info.method} has none to keep"
        sys.stdout.write(f"{path}: {kept}; hash of the learnt values {before[:12]}, now {learnt_hash(path)[:12]}\n")


if __name__ == "__main__":
    main()
