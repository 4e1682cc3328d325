"""Errors a user can act on. Every message says what is wrong and what to do about it."""

from __future__ import annotations


class HeadclipError(Exception):
    """Base of every error that headclip raises on purpose; the command prints it without a traceback."""


class BackboneError(HeadclipError):
    """A backbone is unknown, incomplete, corrupt or cannot be reached."""


class CheckpointError(HeadclipError):
    """A checkpoint cannot be read, or belongs to another backbone or method."""


class ImageError(HeadclipError):
    """One image cannot be decoded or is refused; never ends a run over many images."""


class InputError(HeadclipError):
    """An input path, folder, glob or option does not make sense."""


class DivergedError(InputError):
    """Training has come to a loss that is not finite."""


class ExportError(HeadclipError):
    """A model cannot be exported, an exported one differs from the original, or an engine cannot run it."""


class OutputError(HeadclipError, OSError):
    """A file cannot be written: the disk is full, the folder read-only. An OSError too, with its number and words."""

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.message = message
        if cause is not None:
            self.errno, self.strerror = cause.errno, cause.strerror

    def __str__(self) -> str:
        return self.message
