"""Which image formats can be read here, told by a file's ending or its first bytes.

HEIC, in which phones keep photographs, needs the package pillow-heif; AVIF a Pillow that was built with it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import IO

from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin, features

Opener = Callable[[IO[bytes]], Image.Image]
HAS_HEIC, HAS_AVIF = find_spec("pillow_heif") is not None, bool(features.check("avif"))
HEIC_ENDINGS, AVIF_ENDINGS = (".heic", ".heif", ".hif"), (".avif",)


def _open_heic(stream: IO[bytes]) -> Image.Image:
    from pillow_heif import HeifImageFile

    return HeifImageFile(stream)


def _open_avif(stream: IO[bytes]) -> Image.Image:
    from PIL import AvifImagePlugin

    return AvifImagePlugin.AvifImageFile(stream)


# Pillow's Image.open refuses by its own fixed limit before the size is known. The plugins themselves do not,
# so they are opened directly and the caller's limit decides.
OPENERS: dict[str, Opener] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.jpeg_factory,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    **({"HEIC": _open_heic} if HAS_HEIC else {}),
    **({"AVIF": _open_avif} if HAS_AVIF else {}),
}
EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
    | set(HEIC_ENDINGS if HAS_HEIC else ())
    | set(AVIF_ENDINGS if HAS_AVIF else ())
)
*_FIRST, _LAST = OPENERS
KINDS = f"{', '.join(_FIRST)} or {_LAST}"

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "ZIP"),
)
_HEIC_BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC")
_BRANDS = _HEIC_BRANDS | {b"avif": "AVIF", b"avis": "AVIF"}  # of files that begin with `ftyp`
_ADVICE = {
    "HEIC": "pip install 'headclip[heic]' to read it, or save it as JPEG or PNG",
    "PDF": "save its pages as images",
    "ZIP": "unpack it first",
    "a film": "save its frames as images",
}


def format_of(head: bytes) -> str:
    """The format that the first 16 bytes of a file show, whether it can be read or not; "" for none that is known."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "a film")
    return next((name for signature, name in _SIGNATURES if head.startswith(signature)), "")


def others_advice(others: str) -> str:
    """What to do about files that were passed over, such as "2 .heic, 1 .mov"."""
    heic = any(ending in others for ending in HEIC_ENDINGS)
    return f"{others}; save them as PNG or JPEG{', or read HEIC with pip install headclip[heic]' if heic else ''}"


def why_unreadable(name: str) -> str:
    """Why a file of that format, or of none, is refused, and what to do."""
    found = f"; its content is {name}: {_ADVICE.get(name, 'save it as JPEG or PNG')}" if name else ""
    return f"not a {KINDS} image{found}"
