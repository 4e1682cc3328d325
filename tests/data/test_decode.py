"""Every kind of image file gives the right pixels, and every broken one a clear reason."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headclip.data.decode import as_rgb, decode
from headclip.data.formats import HAS_HEIC
from headclip.errors import ImageError

RAMP = np.add.outer(np.arange(16) * 8, np.arange(12) * 4).astype(np.uint8)  # (16, 12), 0 to 164
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=2)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_colour_is_exact(kind, options):
    pixels = decode(encoded(Image.fromarray(COLOUR), kind, **options))
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, COLOUR)


def test_jpeg_is_close():
    pixels = decode(encoded(Image.fromarray(COLOUR), "JPEG", quality=95, subsampling=0))
    assert np.abs(pixels.astype(int) - COLOUR).max() < 20


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "JPEG"])
def test_grey_has_three_equal_channels(kind):
    pixels = decode(encoded(Image.fromarray(RAMP), kind))
    assert pixels.shape == (16, 12, 3)
    assert np.abs(pixels[..., 0].astype(int) - RAMP).max() <= 4
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_one_bit_and_palette():
    bits = Image.fromarray(RAMP > 80)
    np.testing.assert_array_equal(decode(encoded(bits, "PNG"))[..., 1], np.where(RAMP > 80, 255, 0))
    palette = Image.fromarray(RAMP // 64)
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]])[RAMP // 64]
    np.testing.assert_array_equal(decode(encoded(palette, "PNG")), expected)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_on_white(kind):
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[:8] = 0
    alpha[8:12] = 128
    rgba = np.dstack([COLOUR, alpha])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode(encoded(Image.fromarray(rgba), kind, **options))
    assert (pixels[:8] == 255).all()
    half = 255 + (COLOUR[8:12].astype(float) - 255) * 128 / 255
    assert np.abs(pixels[8:12] - half).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(pixels[12:], COLOUR[12:])


def test_transparent_palette_entry_and_other_background():
    palette = Image.fromarray((RAMP > 80).astype(np.uint8))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    content = encoded(palette, "PNG", transparency=0)
    assert (decode(content)[RAMP <= 80] == 255).all()
    assert (decode(content, background=0)[RAMP <= 80] == 0).all()
    assert (decode(content)[RAMP > 80] == [0, 200, 0]).all()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # full magenta and yellow
    red = decode(encoded(cmyk, kind))
    assert red[..., 0].min() > 240
    assert red[..., 1:].max() < 15


@pytest.mark.parametrize(("bits", "kind"), [(b, k) for b in (8, 10, 12, 14, 16) for k in ("PNG", "TIFF")])
def test_sixteen_bit_words_are_scaled_by_the_depth_in_use(bits, kind):
    values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    pixels = decode(encoded(Image.fromarray(values), kind))
    np.testing.assert_allclose(pixels[..., 0], values / (2**bits - 1) * 255, atol=0.51)


def test_big_endian_sixteen_bit_tiff():
    values = np.linspace(0, 65535, 64).astype(">u2").reshape(8, 8)
    image = Image.frombytes("I;16B", (8, 8), values.tobytes())
    pixels = decode(encoded(image, "TIFF"))
    np.testing.assert_allclose(pixels[..., 0], values.astype(float) / 257, atol=0.51)


def test_sixteen_bit_tiff_where_zero_is_white():
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    pixels = decode(encoded(Image.fromarray(values), "TIFF", tiffinfo={262: 0}))
    np.testing.assert_allclose(pixels[..., 0], 255 - values / 257, atol=0.51)


def test_stated_maximum_of_a_tiff_wins():
    values = np.full((8, 8), 1000, np.uint16)
    pixels = decode(encoded(Image.fromarray(values), "TIFF", tiffinfo={281: 2000}))
    assert (pixels == 128).all()


def test_colour_png_of_sixteen_bits_per_channel():
    values = np.array([0, 256 * 100, 65535], ">u2")
    row = b"\0" + np.tile(values, 8).tobytes()
    pixels = decode(_png(8, 8, depth=16, colour_type=2, data=row * 8))
    assert np.abs(pixels - np.array([0, 100, 255])).max() <= 1


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_tiff_is_scaled_by_its_range(top):
    values = np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8)
    pixels = decode(encoded(Image.fromarray(values), "TIFF"))
    np.testing.assert_allclose(pixels[..., 0], values / top * 255, atol=0.51)


def test_float_tiff_beyond_known_ranges_is_stretched():
    values = np.linspace(-3, 5, 64, dtype=np.float32).reshape(8, 8)
    values[0, 3] = np.nan
    pixels = decode(encoded(Image.fromarray(values), "TIFF"))[..., 0]
    assert (pixels[0, 0], pixels[-1, -1], pixels[0, 3]) == (0, 255, 0)
    empty = np.full((8, 8), np.nan, np.float32)
    with pytest.raises(ImageError, match="finite"):
        decode(encoded(Image.fromarray(empty), "TIFF"))


def test_signed_integers_are_stretched():
    values = np.linspace(-500, 500, 64).astype(np.int32).reshape(8, 8)
    pixels = decode(encoded(Image.fromarray(values), "TIFF"))[..., 0]
    assert (pixels[0, 0], pixels[-1, -1]) == (0, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(orientation, kind):
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:8, :8] = (255, 0, 0)
    upright[:8, 8:] = (0, 255, 0)
    upright[16:, :8] = (0, 0, 255)
    stored = {  # what the camera stores, so that the viewer sees `upright`
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: np.rot90(upright[::-1]),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(image, kind, exif=exif, **options))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() < 40


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_no_reason_to_refuse():
    content = encoded(Image.fromarray(COLOUR), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert decode(content).shape == (16, 12, 3)


def test_first_page_of_many():
    pages = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200)]
    pixels = decode(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert (pixels == 10).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_refused(kind):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    for share in (0.9, 0.5, 0.1):
        with pytest.raises(ImageError) as caught:
            decode(content[: int(len(content) * share)])
        assert "\n" not in str(caught.value)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"RIFF"]),
)
@settings(max_examples=60, deadline=None)
def test_garbage_is_always_an_image_error(tail, head):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        with pytest.raises(ImageError):
            decode(head + tail)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is text")
    (tmp_path / "anim.png").write_bytes(encoded(Image.fromarray(RAMP), "GIF"))
    (tmp_path / "phone.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "film.jpg").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(40))
    (tmp_path / "images.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "empty.png": "empty",
        "text.png": "not a PNG, JPEG",
        "anim.png": "content is GIF: save it as JPEG or PNG",
        **({} if HAS_HEIC else {"phone.jpg": r"content is HEIC: pip install 'headclip\[heic\]' to read it"}),
        "film.jpg": "content is a film: save its frames as images",
        "images.zip": "content is ZIP: unpack it first",
        "folder.png": "folder",
        "pipe.png": "regular file",
        "absent.png": "does not exist",
        "nul\0.png": "cannot be read",
    }
    for name, reason in reasons.items():
        with pytest.raises(ImageError, match=reason):
            decode(tmp_path / name)
    with pytest.raises(ImageError, match="empty"):
        decode(b"")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(Image.fromarray(RAMP), "PNG"))
    if os.geteuid() == 0:  # root may read everything, so the refusal has to be played

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", refuse)
    else:
        path.chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        decode(path)


def test_size_limits_speak_before_decoding():
    huge = _png(20_000, 20_000, depth=1, colour_type=0, data=b"")  # a header only: nothing could be decoded
    with pytest.raises(ImageError, match=r"20,000 x 20,000 .* limit of 100,000,000; raise it with --max-pixels"):
        decode(huge)
    with pytest.raises(ImageError, match="damaged"):  # within the raised limit, so decoding is tried
        decode(huge, max_pixels=400_000_000)
    for size in ((1, 1), (7, 100), (100, 7)):
        with pytest.raises(ImageError, match="at least 8"):
            decode(encoded(Image.new("L", size), "PNG"))
    assert decode(encoded(Image.new("L", (8, 8)), "PNG"), max_pixels=64).shape == (8, 8, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_pillow_limit_neither_warns_nor_decides(kind, monkeypatch):
    content = encoded(Image.new("L", (40, 40), 7), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode(content) == 7).all()
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (COLOUR, COLOUR),
        (RAMP, np.dstack([RAMP] * 3)),
        (RAMP[..., None], np.dstack([RAMP] * 3)),
        (RAMP.astype(np.uint16) * 257, np.dstack([RAMP] * 3)),
        (COLOUR.astype(np.float32) / 255, COLOUR),
        (np.dstack([COLOUR, np.full(RAMP.shape, 255, np.uint8)]), COLOUR),
        (RAMP > 80, np.dstack([np.where(RAMP > 80, 255, 0)] * 3)),
    ],
)
def test_arrays(array, expected):
    np.testing.assert_array_equal(as_rgb(array), expected)


def test_pil_images_and_wrong_arrays(tmp_path):
    np.testing.assert_array_equal(as_rgb(Image.fromarray(COLOUR)), COLOUR)
    path = tmp_path / "a.png"
    Image.fromarray(COLOUR).save(path)
    np.testing.assert_array_equal(as_rgb(str(path)), COLOUR)
    for wrong in (np.zeros((3, 4, 5, 6)), np.zeros((9, 9, 5)), np.zeros((9, 9), complex), np.zeros((2, 2))):
        with pytest.raises(ImageError):
            as_rgb(wrong)


def _png(width: int, height: int, *, depth: int, colour_type: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    "values",
    [
        np.full((9, 8), -5.0, np.float32),
        np.full((9, 8), 1e6, np.float32),
        np.full((9, 8), -7, np.int32),
        np.full((9, 8), 70_000, np.int32),
    ],
)
def test_an_even_image_beyond_the_usual_ranges_is_black(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not decode(encoded(Image.fromarray(values), "TIFF")).any()
        assert not as_rgb(values).any()
        uneven = np.where(np.arange(8) < 4, values, values - 2 * abs(values))  # and no other image is
        assert set(np.unique(as_rgb(uneven))) == {0, 255}
