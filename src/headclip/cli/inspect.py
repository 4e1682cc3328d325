"""`headclip inspect`: what a checkpoint has learnt, and how images come to their scores."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.common import Device, Precision, error_line, output, parse_settings
from headclip.cli.compare import progress_bar

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
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="See headclip methods.  [default: the checkpoint's]")
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the images show, for methods that ask.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the method. Repeatable.")
    ] = None,
    words: Annotated[int, typer.Option(min=1, max=50, metavar="N", help="Nearest words of each token.")] = 5,
    measure: Annotated[Measure, typer.Option(help="Distance between tokens and words.")] = Measure.euclidean,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    precision: Annotated[Precision, typer.Option(help="In which numbers to compute.")] = Precision.fp32,
    image_size: Annotated[
        int | None, typer.Option(min=32, metavar="N", help="Input size of the model, in pixels.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the inspection in DIR.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
) -> None:
    """Draw head weights, words near the prompts, layers' contributions and the parts of scores.

    DIR will hold inspect.html (opens from disk), inspect.json with every number, and the figures as PNG.
    """
    from headclip.figures.canvas import need_matplotlib
    from headclip.figures.page import InspectionWriter
    from headclip.inspection import inspect_image, inspect_model

    need_matplotlib()
    images = _images(image or [])
    _check_out(out, overwrite)
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
    with progress_bar(quiet) as show:
        show("inspecting", 0, len(images) + 1)
        _clear(out)
        writer = InspectionWriter(out, inspect_model(detector, count=words, measure=measure.value))
        for done, file in enumerate(images, start=1):
            show("inspecting", done, len(images) + 1)
            seen = _inspected(inspect_image, detector, file, left_out)
            if seen is not None:
                writer.add(seen)
        page = writer.finish(left_out, shlex.join(["headclip", *sys.argv[1:]]))
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


def _check_out(out: Path, overwrite: bool) -> None:
    from headclip.errors import InputError

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out needs a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if _known_files(out) is None:
        raise InputError(f"{out} is not empty and holds no inspection; choose an empty or a new folder")
    if not overwrite:
        raise InputError(f"{out} already holds an inspection; add --overwrite or choose another folder")


def _known_files(out: Path) -> list[str] | None:
    """The files that an earlier inspection wrote, or None where there was none."""
    from headclip.figures.page import FORMAT, JSON_FILE

    try:
        found = json.loads((out / JSON_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    return [name for name in found.get("files", []) if isinstance(name, str) and Path(name).name == name]


def _clear(out: Path) -> None:
    """Remove the figures of an earlier inspection, and nothing else."""
    for name in _known_files(out) or []:
        (out / name).unlink(missing_ok=True)


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
