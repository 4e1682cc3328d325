"""From the body of a request to named image files, without looking at what is in them."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from headclip.data.discover import printable

_NAME_LENGTH = 255
_MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Upload:
    """One file of a request. name: what the client calls it; it is repeated in answers and never used as a path."""

    name: str
    content: bytes


async def read_uploads(request: Request, max_images: int) -> list[Upload]:
    """The files of a multipart body in any field, or the raw body as one file.

    Raises:
        HTTPException: 400 for no file or a broken body, 413 for too many files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        return await _multipart(request, max_images)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
    if not content:
        raise HTTPException(400, "the body is empty; send an image, or multipart/form-data with several")
    return [Upload("image", bytes(content))]


async def _multipart(request: Request, max_images: int) -> list[Upload]:
    # One more than allowed, so that too many is told from broken.
    parser = MultiPartParser(request.headers, request.stream(), max_files=max_images + 1, max_fields=16)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise HTTPException(413, f"more than {max_images} images in one request") from None
        raise HTTPException(400, f"the multipart body is broken: {error.message}") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, "the multipart body holds no file; give each part a filename")
        if len(files) > max_images:
            raise HTTPException(413, f"more than {max_images} images in one request")
        return [Upload(_shown(file.filename), await file.read()) for file in files]
    finally:
        await form.close()


def _shown(name: str | None) -> str:
    """A client's file name as it may appear in an answer.

    >>> _shown("../../etc/passwd"), _shown(None)
    ('passwd', 'image')
    """
    last = (name or "").replace("\\", "/").rstrip("/").rpartition("/")[2]
    kept = "".join(character for character in printable(last) if character.isprintable())
    return kept[:_NAME_LENGTH] or "image"
