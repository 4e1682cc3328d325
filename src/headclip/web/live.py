"""Images that people drop on the page: a run that grows while the server lives."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from headclip.data.discover import ImageFile
from headclip.data.formats import EXTENSIONS
from headclip.data.volumes.lone import LoneImage
from headclip.errors import HeadclipError
from headclip.judgement.choosing import Chosen, Judging
from headclip.prediction import Judge
from headclip.runs.output import check_output
from headclip.runs.run import Row, is_run_folder
from headclip.runs.writer import RunWriter
from headclip.web.bodies import Upload
from headclip.web.growing import add_images, open_run

IMAGES = "images"
_MOST = 5000  # images; the rest belongs into `headclip predict`
_STEM, _STEM_BYTES = 80, 200  # of a name; its map's, with a number and an extension, must fit into 255 bytes


class LiveBusyError(HeadclipError):
    """Others' images are being judged; try again."""


class LiveFullError(HeadclipError):
    """No more images are kept."""


class LiveRun:
    """A run folder with the images in it, in a temporary place unless one is given.

    Everything that works on a finished run works on it: gallery, threshold, marks, comparison.
    """

    def __init__(self, keep: Path | None, *, max_pixels: int, patience: float) -> None:
        """keep: folder for the images and the run, taken up again if it holds one; None forgets them at the end.

        Raises:
            RunFolderError: `keep` holds something else.
        """
        self._temporary = keep is None
        self._place = Path(tempfile.mkdtemp(prefix="headclip-live-")) if keep is None else keep
        self.folder = self._place / "live"
        self._root = (self._place / IMAGES).absolute()
        check_output(self.folder, resume=is_run_folder(self.folder))
        self._max_pixels = max_pixels
        self._patience = patience
        self._lock = threading.Lock()
        self._writer: RunWriter | None = None
        self._detector: Judge | None = None
        self._chosen = Chosen()

    def start(self, detector: Judge, judging: Judging | None = None) -> None:
        """Create the run, or take it up again. judging: as in `Watch.start`.

        Raises:
            CalibrationError: the calibration belongs to another model.
            RunFolderError: the run was made with another model, or another process writes it.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        self._writer, self._chosen = open_run(self.folder, self._root, detector, judging or Judging())
        self._detector = detector

    def judge(self, uploads: Sequence[Upload]) -> list[Row]:
        """Keep the images and judge them; one row each. Blocks.

        Raises:
            LiveBusyError: the turn did not come in time.
            LiveFullError: there are too many images already.
        """
        if not self._lock.acquire(timeout=self._patience):
            raise LiveBusyError("other images are being judged; try again")
        try:
            writer, detector = self._writer, self._detector
            if writer is None or detector is None:
                raise LiveBusyError("the server is starting or shutting down; try again")
            if len(writer.entries) + len(uploads) > _MOST:
                raise LiveFullError(f"this page keeps {_MOST:,} images; use headclip predict for more")
            files = [self._keep(upload, writer) for upload in uploads]
            add_images(detector, writer, files, self._chosen, max_pixels=self._max_pixels)
            return [writer.entries[file.name].row for file in files]
        finally:
            self._lock.release()

    def close(self) -> None:
        """Finish what is being judged; a temporary run is gone afterwards.

        Raises:
            RunFolderError: what was done last could not be written.
        """
        try:
            with self._lock:
                writer, self._writer = self._writer, None
                if writer is not None:
                    with writer:
                        pass
        finally:
            if self._temporary:
                shutil.rmtree(self._place, ignore_errors=True)

    def _keep(self, upload: Upload, writer: RunWriter) -> ImageFile:
        """Write an upload under a name that nobody else has, and that leads nowhere else."""
        name = free_name(upload.name, {*writer.entries, *(path.name for path in self._root.iterdir())})
        path = self._root / name
        path.write_bytes(upload.content)
        return LoneImage(path, name)


def free_name(wanted: str, taken: set[str]) -> str:
    """A plain file name like the one wanted, with an image's extension, that is not taken.

    >>> free_name("../part 1.PNG", {"part 1.png"}), free_name("<script>", set()), free_name("=A1+2.png", set())
    ('part 1 (2).png', 'script.png', 'A1+2.png')
    """
    last = wanted.replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = last.rpartition(".")
    suffix = f".{extension.lower()}"
    if not dot or suffix not in EXTENSIONS:
        stem, suffix = last, ".png"  # formats are told by content, so a wrong extension does no harm
    # What stands first must not make a spreadsheet take the name for a formula.
    stem = re.sub(r"[^\w \-.,()+=@]", "", stem).strip(" .").lstrip(" .=+@-")[:_STEM] or "image"
    stem = stem.encode()[:_STEM_BYTES].decode(errors="ignore")
    name, number = stem + suffix, 2
    while name in taken:
        name, number = f"{stem} ({number}){suffix}", number + 1
    return name
