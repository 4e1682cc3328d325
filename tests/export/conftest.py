"""What tests of exports share; `images` and `detector` are those of each module."""

from __future__ import annotations

import pytest
from PIL import Image

from headclip.export.graph import ExportGraph
from headclip.export.write import capture


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index}.png")
    return path


@pytest.fixture(scope="module")
def captured(detector):
    """The tiny model's program, which every export of the module would take seconds to capture again."""
    program = capture(ExportGraph(detector))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headclip.export.exporting.capture", lambda graph: program)
        yield program
