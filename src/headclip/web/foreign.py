"""Uploads that are an image and something else as well: a JPEG with an archive, a page or a program behind its end.

Such a file is harmless here, because pictures are decoded and what others get to see is encoded anew. But dropped
images can be kept (`headclip serve --keep`), somebody will hand them on, and their next reader may see the other file.
So an upload has to end where its image ends. Padding may follow, and so may further JPEG images, which cameras
append as previews and depth maps. What is read from disk by `headclip predict` is not asked.

TIFF has no end: its parts may lie anywhere. Archives and PDF documents are looked for in every format, since their
readers look for them at a place of their own. What an image's own comments say is not looked at.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from headclip.data.formats import format_of
from headclip.errors import ImageError
from headclip.web.bodies import Upload

_PADDING = b"\0\xff \r\n\t"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_NEXT = re.compile(rb"\xff+([^\x00\xff])")  # a marker, wherever it comes; 0xff 0x00 is a value of the picture
_JPEG_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_MORE = re.compile(rb"[\0\xff \r\n\t]*?(?=\xff\xd8\xff)")  # padding, and the start of another one
_JPEG_MOST = 10_000  # markers; more are no picture but work for nothing
_SCAN_NEXT = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_ARCHIVE_END, _ARCHIVE_ENTRY = b"PK\x05\x06", b"PK\x01\x02"
_ARCHIVE_TAIL = 22 + 65_535  # the record at an archive's end, and the comment that may follow it
_PDF_WITHIN = 1024  # bytes from the start, in which readers of PDF look for its signature


class ForeignDataError(ImageError):
    """The file is more than an image."""


def check_alone(content: bytes) -> None:
    """Refuse an image file that is another kind of file, too. What is no image at all is left to the decoder.

    Raises:
        ForeignDataError: something follows the image's end, or the end is missing, or the file is also an archive
            or a document.

    >>> check_alone(b"no image")
    """
    kind, end = _end_of(content)
    if not kind:
        return
    if end is None:
        raise ForeignDataError(f"the {kind} image has no end; it is damaged or not an image alone")
    rest = content[end:].strip(_PADDING)
    if rest:
        raise ForeignDataError(
            f"{len(rest):,} bytes that are no part of it follow the {kind} image (a film, an archive, a page?); "
            "open it and save it as an image alone"
        )
    if b"%PDF-" in content[:_PDF_WITHIN]:
        raise ForeignDataError(f"the {kind} image is a PDF document as well; save it as an image alone")
    if _is_archive(content):
        raise ForeignDataError(f"the {kind} image is a ZIP archive as well; save it as an image alone")


def split_off_foreign(uploads: Sequence[Upload]) -> tuple[list[Upload], list[tuple[str, str]]]:
    """The uploads that may be kept, and (name, reason) of the others."""
    kept: list[Upload] = []
    refused: list[tuple[str, str]] = []
    for upload in uploads:
        try:
            check_alone(upload.content)
        except ForeignDataError as error:
            refused.append((upload.name, str(error)))
        else:
            kept.append(upload)
    return kept, refused


def _end_of(content: bytes) -> tuple[str, int | None]:
    """The format, "" for none of ours, and where the image ends, None if nowhere."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _png_end(content)
    if content.startswith(_JPEG_START):
        return "JPEG", _jpeg_end(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        size = int.from_bytes(content[4:8], "little")
        return "WebP", 8 + size + size % 2
    if content.startswith(b"BM"):
        return "BMP", _bmp_end(content)
    if content[4:8] == b"ftyp" and (kind := format_of(content[:16])) in ("HEIC", "AVIF"):
        return kind, _boxes_end(content)
    if content[:2] in (b"II", b"MM") and content[2:4] in (b"*\0", b"\0*", b"+\0", b"\0+"):
        return "TIFF", len(content)
    return "", None


def _boxes_end(content: bytes) -> int | None:
    """Behind the last whole box of a file that is a row of boxes (ISO/IEC 14496-12)."""
    at = 0
    while at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if not kind.isalnum():
            break  # no box: what follows is something else
        if length == 1 and at + 16 <= len(content):
            (length,) = struct.unpack_from(">Q", content, at + 8)
        if length == 0:  # to the end of the file
            return len(content)
        if length < 8 or at + length > len(content):
            return None
        at += length
    return at


def _png_end(content: bytes) -> int | None:
    at = 8
    while at + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        at += 12 + length
        if kind == b"IEND":
            return at
    return None


def _jpeg_end(content: bytes) -> int | None:
    """Behind the last of the JPEG images that follow one another.

    Segments are found as decoders find them, which pass over what stands between two of them.
    """
    at, end, pattern = len(_JPEG_START) - 1, None, _JPEG_NEXT
    for _ in range(_JPEG_MOST):
        found = pattern.search(content, at)
        if found is None:
            return None
        marker, at, pattern = found.group(1)[0], found.end(), _JPEG_NEXT
        if marker == _JPEG_END:
            end = at
            more = _JPEG_MORE.match(content, at)
            if more is None:
                return end
            at = more.end() + 2
        elif marker not in _JPEG_ALONE:
            at += max(2, int.from_bytes(content[at : at + 2], "big"))
            if marker == _JPEG_SCAN:
                pattern = _SCAN_NEXT
    return None


def _bmp_end(content: bytes) -> int | None:
    """Behind the pixels, by width, height and depth: the size that the file itself states can be anything.

    A profile may follow in version 5; then what the file states is believed as far as the profile reaches.
    """
    if len(content) < 54:
        return None
    offset, header, width, height = struct.unpack_from("<IIii", content, 10)
    if header < 40:  # OS/2's, with sides of 16 bits
        width, height, _, depth = struct.unpack_from("<HHHH", content, 18)
        return int(offset + (width * depth + 31) // 32 * 4 * height)
    depth, compression, size = struct.unpack_from("<HII", content, 28)
    rows = (width * depth + 31) // 32 * 4 * abs(height)
    end = offset + (size if compression in (1, 2) else rows)  # run lengths have no size of their own
    if header >= 124 and len(content) >= 14 + 124:
        start, length = struct.unpack_from("<II", content, 14 + 112)
        end = max(end, 14 + start + length if length else 0)
    return int(end)


def _is_archive(content: bytes) -> bool:
    """Whether a ZIP reader finds a directory: it looks for it from the end of the file."""
    tail = content[-_ARCHIVE_TAIL:]
    at = tail.rfind(_ARCHIVE_END)
    while at >= 0:
        if at + 22 <= len(tail):
            size = int.from_bytes(tail[at + 12 : at + 16], "little")
            start = len(content) - len(tail) + at - size
            if size and start >= 0 and content.startswith(_ARCHIVE_ENTRY, start):
                return True
        at = tail.rfind(_ARCHIVE_END, 0, at)
    return False
