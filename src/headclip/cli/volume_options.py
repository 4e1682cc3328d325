"""Options about volumes, and what a run of volumes says at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.common import counted, output

if TYPE_CHECKING:
    from headclip.data.discover import ImageSet
    from headclip.data.volumes.model import VolumeOptions


class Plane(StrEnum):
    """How NIfTI is cut into slices."""

    axial = "axial"
    coronal = "coronal"
    sagittal = "sagittal"


Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="CENTRE,WIDTH",
        help="Greys of volumes, such as 40,80 for a brain in CT.  [default: the file's, else percentiles]",
    ),
]
CutPlane = Annotated[
    Plane | None,
    typer.Option("--plane", help="How NIfTI is cut into slices.  [default: as acquired]"),
]
TopShare = Annotated[
    float | None,
    typer.Option(
        "--volume-share",
        min=0.0,
        max=1.0,
        metavar="X",
        help="A volume's score is the mean of this share of its slices, the highest.  [default: 0.1]",
    ),
]
MaxVoxels = Annotated[
    int | None, typer.Option("--max-voxels", min=1, metavar="N", help="Refuse larger volumes.  [default: 1000000000]")
]
KeepNames = Annotated[
    bool,
    typer.Option(
        "--keep-names", help="Call DICOM and NIfTI volumes after their files, which may name patients, in all results."
    ),
]
Key = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="Write which neutral name stands for which file; outside RUN."),
]


def volume_options(
    window: str | None, plane: Plane | None, share: float | None, max_voxels: int | None, keep_names: bool
) -> VolumeOptions:
    """The options as one object.

    Raises:
        InputError: a value makes no sense.
    """
    from headclip.data.volumes.model import DEFAULT_MAX_VOXELS, DEFAULT_TOP_SHARE, VolumeOptions
    from headclip.data.volumes.window import Window as Greys

    return VolumeOptions(
        None if window is None else Greys.parse(window),
        None if plane is None else plane.value,
        keep_names,
        DEFAULT_MAX_VOXELS if max_voxels is None else max_voxels,
        DEFAULT_TOP_SHARE if share is None else share,
    )


def images_alone(inputs: Sequence[str]) -> ImageSet:
    """The images that `inputs` name, for commands that do not take volumes apart.

    Raises:
        InputError: there are volumes among them, of which nothing or the first page alone would be looked at.
    """
    from headclip.data.volumes.find import discover_volumes
    from headclip.data.volumes.model import VolumeOptions, VolumeSet
    from headclip.errors import InputError

    found = discover_volumes(inputs, VolumeOptions(), lambda: b"")
    if isinstance(found, VolumeSet):
        raise InputError(
            f"{len(found.volumes):,} of the files or series are volumes (TIFF of many pages, DICOM, NIfTI), which are "
            "judged slice by slice; judge them with `headclip predict ... --out RUN`, then name RUN here"
        )
    return found


def hide(images: ImageSet, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as run.json may keep them: without paths where names are hidden."""
    from headclip.inference.volumes_inputs import HIDDEN_INPUT

    if not getattr(images, "hidden", False):
        return arguments
    reference = None if arguments["reference"] is None else HIDDEN_INPUT
    return arguments | {"inputs": [HIDDEN_INPUT], "reference": reference}


def print_volumes(folder: Path, top: int) -> None:
    """The most anomalous volumes of a run; nothing where it has none."""
    from rich.table import Table

    from headclip.runs.volumes import read_volumes

    rows = read_volumes(folder).volumes
    if not rows:
        return
    console = output()
    best = sorted((row for row in rows if row.score is not None), key=lambda row: -(row.score or 0.0))[:top]
    if best:
        table = Table(title="Most anomalous volumes", title_justify="left", title_style="bold", box=None)
        for name in ("score", "slices", "worst"):
            table.add_column(name, justify="right")
        if any(row.verdict for row in rows):
            table.add_column("verdict")
        table.add_column("volume", overflow="fold")
        for row in best:
            verdict = [row.verdict] if row.verdict else []
            table.add_row(f"{row.score:.4f}", f"{row.slices}", f"{row.worst_slice}", *verdict, row.volume)
        console.print(table)
        console.print()
    failed = sum(row.status == "failed" for row in rows)
    judged = counted(len(rows) - failed, "volume")
    console.print(f"{judged} judged, {failed:,} failed: volumes.csv, volumes/", soft_wrap=True)
    print_volume_verdicts(folder)


def print_volume_verdicts(folder: Path) -> None:
    """How many volumes of a run are defects, to review and ok; nothing where no threshold of volumes was applied."""
    from headclip.judgement.verdicts import Verdict
    from headclip.runs.run import Run
    from headclip.runs.volumes import read_volumes

    rows = read_volumes(folder).volumes
    if not rows:
        return
    criteria = Run.open(folder).criteria
    rule = None if criteria is None else criteria.volume
    counts = Counter(row.verdict for row in rows if row.verdict)
    if rule is not None and not counts:
        words = f"the calibration is about scores of {100 * rule.share:g} % of the slices"
        output().print(f"No verdicts of volumes: {words} (--volume-share {rule.share:g})", soft_wrap=True)
    if counts:
        defect, review, ok = (counts[verdict.value] for verdict in (Verdict.defect, Verdict.review, Verdict.ok))
        output().print(f"Of volumes: {defect:,} defect, {review:,} to review, {ok:,} ok", soft_wrap=True)
