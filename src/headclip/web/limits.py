"""What the server accepts, so that nobody can fill its memory or keep it busy for ever."""

from __future__ import annotations

from dataclasses import dataclass

from headclip.errors import InputError

SMALL_BODY = 64 * 1024  # bytes; of every request that carries no image
UPLOADS = 8  # bodies of full size that may be on their way at the same time


@dataclass(frozen=True)
class Limits:
    """Bounds of one server.

    max_bytes: size of a request's body; max_pixels: width x height of an image; max_images: images of a request;
    seconds: from the first byte of a request to its answer; queue: images that wait for the model;
    queue_pixels: their pixels together (an image alone in the queue is let in whatever its size).
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_images: int = 64
    seconds: float = 30.0
    queue: int = 128
    queue_pixels: int = 200_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "seconds", "queue", "queue_pixels"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} {getattr(self, name)}: it must be more than 0")

    @property
    def upload_bytes(self) -> int:
        """Bytes of all bodies that are on their way at the same time."""
        return UPLOADS * self.max_bytes

    @property
    def images(self) -> int:
        """Images that one request may hold: they enter the queue together, so the queue bounds them too."""
        return min(self.max_images, self.queue)
