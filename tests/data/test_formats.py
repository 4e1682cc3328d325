"""Phones' formats: HEIC with an extra, AVIF where Pillow has it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from headclip.data.decode import decode
from headclip.data.discover import discover
from headclip.data.formats import EXTENSIONS, HAS_AVIF, HAS_HEIC, format_of, others_advice
from headclip.errors import ImageError
from headclip.web.foreign import ForeignDataError, check_alone

needs_avif = pytest.mark.skipif(not HAS_AVIF, reason="this Pillow has no AVIF")
needs_heic = pytest.mark.skipif(not HAS_HEIC, reason="the extra `heic` is not installed")
MODERN = [pytest.param("AVIF", marks=needs_avif), pytest.param("HEIF", marks=needs_heic)]


def scene():
    """(96, 128, 3): a ramp to the right with a bright corner at the upper left."""
    pixels = np.tile(np.linspace(20, 160, 128), (96, 1))
    pixels[:24, :24] = 240
    return Image.fromarray(np.repeat(pixels[..., None], 3, axis=2).astype(np.uint8))


def saved(kind, image=None, **options):
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()  # the tests write; headclip reads without registering anything
    buffer = io.BytesIO()
    (image or scene()).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", MODERN)
def test_pixels_come_back(kind, tmp_path):
    content = saved(kind, quality=95)
    found = decode(content)
    assert (found.shape, found.dtype) == ((96, 128, 3), np.uint8)
    assert np.abs(found.astype(int) - np.asarray(scene())).mean() < 3
    name = {"AVIF": "a.avif", "HEIF": "a.HEIC"}[kind]
    (tmp_path / name).write_bytes(content)
    assert [file.name for file in discover([tmp_path])] == [name]
    with pytest.raises(ImageError, match="12,288, more than the limit of 10,000"):
        decode(content, max_pixels=10_000)


@pytest.mark.parametrize("kind", MODERN)
def test_pictures_are_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is stored has to be turned by 90 degrees clockwise
    image = scene()
    image.info["exif"] = exif.tobytes()  # from which the writers of both formats make a rotation of the file's own
    found = decode(saved(kind, image, exif=exif.tobytes(), quality=95))
    assert found.shape == (128, 96, 3)
    assert found[:20, -20:].mean() > 220  # the upper left corner is the upper right one


@pytest.mark.parametrize("kind", MODERN)
def test_damaged_files_say_so(kind):
    content = saved(kind)
    for cut in (40, len(content) // 2, len(content) - 20):
        with pytest.raises(ImageError, match=r"damaged or not supported|ends too early"):
            decode(content[:cut])


@pytest.mark.parametrize("kind", MODERN)
def test_a_server_takes_them_and_nothing_behind_them(kind):
    content = saved(kind)
    check_alone(content)
    with pytest.raises(ForeignDataError, match="are no part of it"):
        check_alone(content + b"<html><script>alert(1)</script></html>")
    with pytest.raises(ForeignDataError, match="has no end"):
        check_alone(content[:-9])


def test_what_is_what():
    assert format_of(b"\0\0\0\x18ftypheic") == format_of(b"\0\0\0\x18ftypmif1") == "HEIC"
    assert format_of(b"\0\0\0\x18ftypavif") == "AVIF"
    assert format_of(b"\0\0\0\x18ftypqt  ") == "a film"
    assert (".heic" in EXTENSIONS, ".avif" in EXTENSIONS) == (HAS_HEIC, HAS_AVIF)
    assert "pip install" in others_advice("3 .heic, 1 .mov")
    assert "pip install" not in others_advice("1 .mov")
