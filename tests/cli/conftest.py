"""What tests of several commands share."""

from __future__ import annotations

import pytest

from headclip.clip.weights import save_backbone
from tiny_clip import make_backbone, make_config


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """The folder of a small random CLIP."""
    folder = tmp_path_factory.mktemp("backbone")
    save_backbone(make_backbone(make_config()), folder)
    return folder
