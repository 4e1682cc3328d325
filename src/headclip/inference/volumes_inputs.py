"""What `headclip predict` is pointed at, with volumes taken apart and patients' names hidden."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from headclip.data.discover import ImageSet
from headclip.data.volumes.find import discover_volumes
from headclip.data.volumes.model import VolumeOptions, VolumeSet
from headclip.data.volumes.names import run_salt
from headclip.errors import InputError

HIDDEN_INPUT = "(hidden)"


def open_inputs(
    inputs: Sequence[str | Path], out: str | Path, options: VolumeOptions | None = None, *, resume: bool = False
) -> ImageSet:
    """Images, many-page TIFF, NIfTI and DICOM for `predict_run`, with names that belong to the run in `out`.

    Raises:
        InputError: an input does not exist or holds nothing, a package for a format is missing, or the run's key cannot
            be read or written.
    """

    @cache
    def salt() -> bytes:
        return run_salt(Path(out), keep=resume)

    return discover_volumes(inputs, options or VolumeOptions(), salt)


def volume_facts(images: VolumeSet) -> dict[str, Any]:
    """What run.json says of the volumes of a run, beside the settings on which results depend."""
    names = "neutral" if images.hidden else "of files"
    return {"count": len(images.volumes), "top_share": images.options.top_share, "names": names}


def refuse_division(shard: object | None, elsewhere: object | None) -> None:
    """A volume's slices stay together.

    Raises:
        InputError: the run is to be divided.
    """
    if shard is not None or elsewhere is not None:
        raise InputError("volumes are not divided among shards or workers; judge some of the volumes on each machine")
