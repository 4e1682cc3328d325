"""Options that several commands have, so that each is named, explained and checked in one way."""

from __future__ import annotations

import logging
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from headclip.cli.common import Device, Precision, debugging, parse_settings


def errors_only(context: typer.Context, quiet: bool) -> bool:
    """What `--quiet` does beside hiding the command's own output: warnings in the log are not shown either."""
    if quiet and not debugging():
        log = logging.getLogger("headclip")
        # For programs that call commands one after another. The root's: this one is not closed after a wrong option.
        context.find_root().call_on_close(partial(log.setLevel, log.level))
        log.setLevel(logging.ERROR)
    return quiet


class Protocol(StrEnum):
    """How the pixel metrics are computed."""

    exact = "exact"
    ader = "ader"


class Scale(StrEnum):
    """At which resolution maps and masks meet."""

    image = "image"
    tower = "tower"


# --- the model

Backbone = Annotated[
    str, typer.Option(help="'embedded', a name such as ViT-L-14-336, a hub id, a folder or a checkpoint file.")
]
OneCheckpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="FILE", help="What headclip train learnt, or a .pth that a method's authors published."
    ),
]
Checkpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        metavar="[NAME=]FILE",
        help="What headclip train learnt, or a published .pth; NAME is its method, or what tables shall call it. "
        "Repeatable.",
    ),
]
OneMethod = Annotated[
    str | None,
    typer.Option("--method", metavar="NAME", help="See headclip methods.  [default: the checkpoint's, else headclip]"),
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME[,NAME...]",
        help="See headclip methods; several share the vision pass.  [default: the checkpoints', else headclip]",
    ),
]
TrainedMethod = Annotated[
    str, typer.Option("--method", metavar="NAME", help="What to train; headclip methods lists them.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the method, e.g. --set alpha=0.5. Repeatable."),
]
SettingsOfMany = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="[METHOD.]NAME=VALUE",
        help="Any setting of the method, e.g. --set alpha=0.5, or of one of several. Repeatable.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="A few normal images; what has no like in them counts as more anomalous."),
]
Category = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="What the images show, for methods that ask.  [default: object]"),
]
Tile = Annotated[bool, typer.Option("--tile", help="Judge images larger than the model's input in overlapping tiles.")]
RegionOfInterest = Annotated[
    str | None,
    typer.Option(
        metavar="X,Y,W,H",
        help="Judge this part of each image alone: left, top, width, height, in pixels or percent (10%,0,80%,100%).",
    ),
]
TileOverlap = Annotated[
    float | None,
    typer.Option(min=0.0, max=0.75, metavar="X", help="Share of a tile that its neighbour sees too.  [default: 0.25]"),
]

# --- the computation

OnDevice = Annotated[Device, typer.Option("--device", help="Where to compute.")]
InPrecision = Annotated[Precision, typer.Option("--precision", help="In which numbers to compute.")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=32, metavar="N", help="Input size of the model, in pixels.  [default: the method's]"),
]


def share(text: str) -> float:
    """A number of which people think in percent, or write with a comma.

    Raises:
        BadParameter: it is none; says how to write what was meant.
    """
    try:
        return float(text)
    except ValueError:
        pass
    number, percent, _ = text.strip().replace(",", ".").partition("%")
    try:
        meant = float(number) / (100 if percent else 1)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number; write one between 0 and 1, e.g. 0.7") from None
    raise typer.BadParameter(f"{text!r} is no number; write {meant:g}")


def _batch_size(text: str) -> int | None:
    """ "auto" is None, as if the option were not there."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither auto nor a whole number from 1 on")
    return int(text)


BatchSize = Annotated[
    int | None,
    typer.Option(
        parser=_batch_size,
        metavar="N",
        help="Images at a time; auto goes by tower, image size and memory.  [default: auto]",
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the tower first: a minute, then faster in fp32. Needs C++.")
]
MaxPixels = Annotated[int | None, typer.Option(min=1, metavar="N", help="Refuse larger images.  [default: 100000000]")]

# --- training

Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the images.  [default: the method's, mostly 15]")]
TrainingBatch = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Images a step.  [default: the method's, mostly 8]")
]
Rate = Annotated[float | None, typer.Option(help="Learning rate.  [default: the method's, mostly 0.001]")]

# --- evaluation

Resolution = Annotated[
    Scale | None,
    typer.Option(help="Where maps and masks meet.  [default: image; tower with the metrics of ader]"),
]
Bootstrap = Annotated[int, typer.Option(min=0, metavar="N", help="Draws for the intervals; 0: none.")]
Limit = Annotated[int | None, typer.Option(min=2, metavar="N", help="A first look at N images of each category.")]
Figures = Annotated[bool, typer.Option("--figures/--no-figures", help="Draw ROC, PR and PRO curves.")]
AllowLeakage = Annotated[
    bool, typer.Option("--allow-leakage", help="Score even images of the training set; marks every table.")
]

OneShard = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only part I (from 1) of N; headclip merge joins all N."),
]

# --- output

AsJson = Annotated[bool, typer.Option("--json", help="Print results.json instead of tables.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", callback=errors_only)]


def model_arguments(
    backbone: str,
    checkpoint: Path | None,
    method: str | None,
    category: str | None,
    setting: list[str] | None,
    reference: Path | None,
    device: Device,
    precision: Precision,
    image_size: int | None,
    batch_size: int | None,
) -> dict[str, Any]:
    """The options of one model as `headclip.cli.models.load_detector` takes them, and as run.json keeps them."""
    return {
        "backbone": backbone,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "method": method,
        "category": category,
        "settings": parse_settings(setting or []),
        "reference": None if reference is None else str(reference),
        "device": device.value,
        "precision": precision.value,
        "image_size": image_size,
        "batch_size": batch_size,
    }


def overlap_of(tile: bool, overlap: float | None) -> float | None:
    """Of the tiles that `--tile` and `--tile-overlap` ask for; None without tiles.

    Raises:
        InputError: an overlap without tiles.
    """
    from headclip.errors import InputError

    if overlap is not None and not tile:
        raise InputError("--tile-overlap is of tiles; add --tile, or leave it out")
    return (0.25 if overlap is None else overlap) if tile else None
