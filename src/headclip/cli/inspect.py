"""`headclip inspect`: what a checkpoint has learnt, and how images come to their scores."""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options as shared
from headclip.cli.common import Device, Precision, command_line, error_line, output, parse_settings
from headclip.cli.progress import plain_bars

if TYPE_CHECKING:
    from headclip.inference.detector import Detector

MOST_IMAGES = 40


class Measure(StrEnum):
    """How far a learnt token is from a word."""

    euclidean = "euclidean"
    cosine = "cosine"


def inspect(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the page and the figures.")],
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CHECKPOINT]",
            help="What headclip train learnt, or a .pth that a method's authors published.  "
            "[default: the one that ships with headclip]",
        ),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", "-i", metavar="FILE", help="An image or folder. Repeatable.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="As in headclip predict.  [default: the checkpoint's, else embedded]")
    ] = None,
    method: shared.OneMethod = None,
    category: shared.Category = None,
    setting: shared.Settings = None,
    words: Annotated[int, typer.Option(min=1, max=50, metavar="N", help="Nearest words of each token.")] = 5,
    measure: Annotated[Measure, typer.Option(help="Distance between tokens and words.")] = Measure.euclidean,
    device: shared.OnDevice = Device.auto,
    precision: shared.InPrecision = Precision.fp32,
    image_size: shared.ImageSize = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the inspection in DIR.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Draw head weights, words near the prompts, layers' contributions and the parts of scores.

    DIR will hold inspect.html (opens from disk), inspect.json with every number, and the figures as PNG.
    """
    from headclip.figures.canvas import need_matplotlib
    from headclip.figures.page import InspectionWriter
    from headclip.inspection import inspect_image, inspect_model

    need_matplotlib()
    images = _images(image or [])
    earlier = _earlier(out, overwrite)
    detector = _detector(
        checkpoint,
        backbone,
        method=method,
        category=category,
        settings=parse_settings(setting or []),
        device=device.value,
        precision=precision.value,
        image_size=image_size,
    )
    left_out: dict[str, str] = {}
    with plain_bars(quiet) as show:
        show("inspecting", 0, len(images) + 1)
        for path in earlier:
            path.unlink(missing_ok=True)
        writer = InspectionWriter(out, inspect_model(detector, count=words, measure=measure.value))
        for done, file in enumerate(images, start=1):
            show("inspecting", done, len(images) + 1)
            seen = _inspected(inspect_image, detector, file, left_out)
            if seen is not None:
                writer.add(seen)
        page = writer.finish(left_out, command_line())
        show("inspecting", len(images) + 1, len(images) + 1)
    for name, reason in left_out.items():
        error_line(f"left out {reason if name in reason else f'{name}: {reason}'}")
    if not quiet:
        _report(writer.model, page)


def _images(inputs: list[str]) -> list[Any]:
    from headclip.data.discover import discover
    from headclip.errors import InputError

    if not inputs:
        return []
    images = list(discover(inputs))
    if len(images) > MOST_IMAGES:
        raise InputError(
            f"{len(images)} images are too many for one page; name at most {MOST_IMAGES}, "
            "or use headclip predict for a folder"
        )
    return images


def _detector(checkpoint: Path | None, backbone: str | None, **options: Any) -> Detector:
    """On the backbone that the checkpoint was trained on, unless the user names one."""
    from headclip.inference.detector import Detector
    from headclip.methods.checkpoint import OFFICIAL_SUFFIXES, read_info

    if backbone is None:
        known = checkpoint is not None and checkpoint.suffix not in OFFICIAL_SUFFIXES
        backbone = read_info(checkpoint).backbone if known and checkpoint is not None else "embedded"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no checkpoint")  # the page says it
        return Detector(backbone, checkpoint, **options)


def _inspected(inspect_image: Any, detector: Detector, file: Any, left_out: dict[str, str]) -> Any:
    from headclip.errors import ImageError

    try:
        return inspect_image(detector, file.path, name=file.name)
    except ImageError as error:
        left_out[file.name] = str(error)
        return None


def _earlier(out: Path, overwrite: bool) -> list[Path]:
    """The files that an earlier inspection wrote, which are to be replaced.

    Raises:
        InputError: `out` is a file, holds something else, or an inspection that is not to be replaced.
    """
    from headclip.errors import InputError
    from headclip.figures.page import FORMAT, JSON_FILE
    from headclip.files import results_in

    found = results_in(out, JSON_FILE, FORMAT, "inspection")
    if found is None:
        return []
    if not overwrite:
        raise InputError(f"{out} already holds an inspection; add --overwrite or choose another folder")
    return [out / name for name in found.get("files", []) if isinstance(name, str) and Path(name).name == name]


def _report(model: Any, page: Path) -> None:
    console = output()
    if model.heads is not None:
        low, high = float(model.heads.weights.min()), float(model.heads.weights.max())
        rows, columns = model.heads.weights.shape
        console.print(f"head weights: {rows} layers of {columns} heads, from {low:.3f} to {high:.3f}")
    if model.prompts is not None:
        share = 100 * model.prompts.share_beyond
        console.print(f"prompts: {share:.0f} % of the learnt tokens lie further from every word than words do")
    for reason in model.absent.values():
        console.print(f"not shown: {reason}", soft_wrap=True)
    console.print(f"Page: {page}", soft_wrap=True)
