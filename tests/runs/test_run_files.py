"""Files of a run folder: exact maps, distinct names, and whole or not at all."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from headclip.data.levels import quantise
from headclip.runs import pictures
from headclip.runs.files import RunFileNameError, RunFolderError, map_file, overlay_file, preview_file, write_atomic
from headclip.runs.pictures import encode_map, encode_mask, encode_preview, read_map, read_png


@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)))
def test_quantised_maps_are_within_half_a_level(values):
    assert np.abs(quantise(values) / 65535 - values.astype(np.float64)).max() <= 0.5 / 65535 + 1e-9


def test_map_files_round_trip(tmp_path):
    values = np.random.default_rng(0).random((50, 31), dtype=np.float32)
    values[0, :2] = 0.0, 1.0
    write_atomic(tmp_path, "maps/a.png", encode_map(quantise(values)))
    back = read_map(tmp_path / "maps/a.png")
    assert back.dtype == np.float32
    assert np.abs(back - values).max() <= 1 / 65535
    assert (back[0, 0], back[0, 1]) == (0.0, 1.0)
    with Image.open(tmp_path / "maps/a.png") as image:
        assert image.mode == "I;16"


def test_maps_and_masks_beyond_the_limit_of_pillow_are_read(tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((50, 31), dtype=np.float32)
    write_atomic(tmp_path, "maps/a.png", encode_map(quantise(values)))
    write_atomic(tmp_path, "masks/a.png", encode_mask(values > 0.5))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "maps/a.png")
    assert np.abs(read_map(tmp_path / "maps/a.png") - values).max() <= 1 / 65535
    assert np.array_equal(read_png(tmp_path / "masks/a.png") > 0, values > 0.5)
    monkeypatch.setattr(pictures, "MOST_PIXELS", 50 * 31 - 1)
    with pytest.raises(RunFolderError, match="31 x 50 pixels are more than 1,549"):
        read_map(tmp_path / "maps/a.png")


def test_values_outside_the_range_are_clipped():
    assert quantise(np.array([[-0.1, 1.1]], np.float32)).tolist() == [[0, 65535]]


def test_missing_and_damaged_maps(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    for name in ("bad.png", "none.png"):
        with pytest.raises(RunFolderError, match="--resume makes it again"):
            read_map(tmp_path / name)


def test_names_never_meet():
    names = ["a.png", "a.jpg", "x/a.png", "x/" + "n" * 251 + ".png", "x/" + "n" * 250 + "m.png"]
    for place in (map_file, overlay_file, preview_file):
        files = [place(name) for name in names]
        assert len(set(files)) == len(names)
        assert all(len(part.encode()) <= 255 for file in files for part in file.split("/"))


def test_writing_replaces_as_a_whole(tmp_path, monkeypatch):
    write_atomic(tmp_path, "x/a.txt", b"old")

    def die(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", die)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path, "x/a.txt", b"new")
    assert (tmp_path / "x/a.txt").read_bytes() == b"old"
    write_atomic(tmp_path, "x/a.txt", b"new")
    assert (tmp_path / "x/a.txt").read_bytes() == b"new"


def test_reasons_why_a_file_cannot_be_written(tmp_path, monkeypatch):
    write_atomic(tmp_path, "maps/a.png", b"file")
    with pytest.raises(RunFileNameError, match="stand where"):
        write_atomic(tmp_path, "maps/a.png/b.png", b"file below a file")
    with pytest.raises(RunFileNameError, match="too long"):
        write_atomic(tmp_path, "n" * 300, b"")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(RunFolderError, match=r"No space left on device; .* --resume"):
        write_atomic(tmp_path, "b.txt", b"")


def test_previews_are_small_and_keep_their_shape():
    for (height, width), expected in (
        ((3000, 1500), (1024, 512)),
        ((9, 4000), (2, 1024)),
        ((30, 20), (30, 20)),
    ):
        with Image.open(io.BytesIO(encode_preview(np.zeros((height, width, 3), np.uint8)))) as image:
            assert (image.height, image.width) == expected
