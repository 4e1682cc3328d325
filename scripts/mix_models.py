"""A model between two stages of one pretraining: every weight a share of the way from the earlier to the later.

    python scripts/mix_models.py runs/stage-5/model runs/stage-6/model --share 0.85 --out runs/mixed

What a later stage has learnt is mostly kept, and what it forgot comes back in part (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022). The later model may have more layers, or detail filters, where the earlier
has none: these are then taken as they are, and the rest starts from what changes nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from headclip.clip.backbone import Backbone
from headclip.clip.initialise import grow
from headclip.clip.weights import load_backbone, save_backbone
from headclip.errors import HeadclipError

WHOLE = "vision.detail.filters."  # half a filter is another filter


def mixed(earlier: Backbone, later: Backbone, share: float) -> Backbone:
    """`later` where share is 1, `earlier` (grown to the same architecture) where it is 0.

    Raises:
        InputError: one cannot grow into the other.
    """
    config = replace(later.config, name=earlier.config.name, default_image_size=earlier.config.default_image_size)
    grown = grow(earlier, config).state_dict()
    fresh = earlier.config.vision.detail == 0
    result = Backbone(later.config, later.tokenizer, later.name)
    with torch.no_grad():
        result.load_state_dict(
            {
                name: value if fresh and name.startswith(WHOLE) else torch.lerp(grown[name], value, share)
                for name, value in later.state_dict().items()
            }
        )
    return result.freeze()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("earlier", type=Path)
    parser.add_argument("later", type=Path)
    parser.add_argument("--share", type=float, default=0.85)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if not 0 <= options.share <= 1:
        raise SystemExit(f"the share {options.share} is not between 0 and 1")
    try:
        save_backbone(mixed(load_backbone(options.earlier), load_backbone(options.later), options.share), options.out)
    except HeadclipError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
