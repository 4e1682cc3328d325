"""`headclip regions`: the regions of a run for other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from headclip.cli.common import counted, output


class Format(StrEnum):
    """What other tools read."""

    coco = "coco"
    labelstudio = "labelstudio"
    csv = "csv"
    masks = "masks"


class VerdictName(StrEnum):
    """The verdicts, without importing what judges."""

    ok = "ok"
    review = "review"
    defect = "defect"


def regions(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder of headclip predict.")],
    to: Annotated[Format, typer.Option("--to", help="COCO JSON, Label Studio JSON, a table, or mask images.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="The file; for masks, the folder.")],
    verdict: Annotated[
        list[VerdictName] | None, typer.Option(help="Only images with this verdict. Repeatable.  [default: all]")
    ] = None,
    url_prefix: Annotated[
        str, typer.Option(metavar="URL", help="For labelstudio: what stands before the images' names.")
    ] = "/data/local-files/?d=",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="For masks: replace files of their names in a folder that has some.")
    ] = False,
) -> None:
    """Write the regions of a run in the format of another tool.

    RUN must have been judged with a pixel threshold (headclip predict --calibration, headclip rejudge).
    """
    from headclip.runs.exports import export_regions
    from headclip.runs.run import Run

    wanted = None if not verdict else {item.value for item in verdict}
    count = export_regions(Run.open(run), to.value, out, verdicts=wanted, url_prefix=url_prefix, overwrite=overwrite)
    what = counted(count, "mask" if to is Format.masks else "region")
    output().print(f"{what} in {out}", soft_wrap=True)
