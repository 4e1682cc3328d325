"""`headclip compare`: methods or runs side by side in one figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options as shared
from headclip.cli.common import Device, Precision, output
from headclip.cli.progress import plain_bars

if TYPE_CHECKING:
    from headclip.data.discover import ImageFile
    from headclip.inference.detector import Detector
    from headclip.inspection.choosing import Rule
    from headclip.inspection.comparison import Comparison
    from headclip.inspection.truth import TruthFinder


class Choice(StrEnum):
    """Which images of many are shown."""

    first = "first"
    anomalous = "anomalous"
    different = "different"
    even = "even"
    wrong = "wrong"


class ScaleKind(StrEnum):
    """What colours stand for."""

    value = "value"
    rank = "rank"
    method = "method"


class Style(StrEnum):
    """How maps are shown."""

    overlay = "overlay"
    map = "map"


def compare(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FIGURE", help="A .png, .pdf or .svg file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[INPUT...]", help="Images, folders, quoted globs; or folders of headclip predict."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Methods, one column each.  [default: the checkpoints', else headclip]"),
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(metavar="[METHOD=]FILE", help="What headclip train learnt, for its method. Repeatable."),
    ] = None,
    backbone: shared.Backbone = "embedded",
    category: shared.Category = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", "-d", metavar="NAME=PATH", help="A labelled dataset, for ground truth. Repeatable."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Masks with the images' names, for ground truth.")
    ] = None,
    choose: Annotated[
        Choice | None,
        typer.Option(
            help="Images to show: the first, the most anomalous, those that methods rank most differently, from "
            "high to low in even steps, or those judged most wrongly (with --data).  "
            "[default: first; different for several runs, anomalous for one]"
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=40, metavar="N", help="Images to show.")] = 6,
    scale: Annotated[
        ScaleKind | None,
        typer.Option(
            help="Colours: map values, on one range for all; ranks of each method's values, one scale for all; or "
            "values on a range for each method.  [default: value if all columns are one method's, else rank]"
        ),
    ] = None,
    limits: Annotated[
        tuple[float, float] | None,
        typer.Option("--range", metavar="LOW HIGH", help="Map values of the first and the last colour."),
    ] = None,
    style: Annotated[Style, typer.Option(help="Maps over the image, or alone.")] = Style.overlay,
    outline: Annotated[
        bool, typer.Option("--outline", help="Draw the edge of the ground truth over the maps.")
    ] = False,
    titles: Annotated[str | None, typer.Option(metavar="A,B,...", help="Titles of the columns.")] = None,
    names: Annotated[bool, typer.Option("--names/--no-names", help="File names on the left.")] = True,
    width: Annotated[
        float | None, typer.Option(min=1.0, max=40.0, metavar="INCHES", help="Of the figure.  [default: at most 7.16]")
    ] = None,
    dpi: Annotated[int, typer.Option(min=50, max=1200, metavar="N", help="Dots per inch.")] = 300,
    device: shared.OnDevice = Device.auto,
    precision: shared.InPrecision = Precision.auto,
    image_size: shared.ImageSize = None,
    quiet: shared.Quiet = False,
) -> None:
    """Draw images, ground truth and the maps of several methods, or of finished runs, in one figure.

    Beside FIGURE lies a .json file with the scores and settings behind it.
    """
    from headclip.data.datasets import open_spec
    from headclip.figures.canvas import check_path, draw, need_matplotlib
    from headclip.figures.compare import Options, compare_figure
    from headclip.files import prove_place
    from headclip.inspection.scales import check_limits
    from headclip.inspection.truth import TruthFinder
    from headclip.runs.run import is_run_folder

    check_path(out)
    prove_place(out)
    need_matplotlib()
    if limits is not None:
        check_limits(limits, scale.value if scale else None)
    _refuse_evaluations(inputs or [])
    truths = TruthFinder([open_spec(spec) for spec in data or []], masks)
    folders = [entry for entry in inputs or [] if is_run_folder(Path(entry))]
    chosen = {"count": count, "scale": scale.value if scale else None, "limits": limits}
    with plain_bars(quiet) as show:
        if folders:
            found, facts = _of_runs(inputs or [], folders, method, checkpoint, truths, choose, chosen, show, titles)
        else:
            model = {"backbone": backbone, "category": category, "device": device.value, "precision": precision.value}
            found, facts = _of_methods(
                inputs or [],
                method,
                checkpoint,
                {**model, "image_size": image_size},
                truths,
                choose,
                chosen,
                show,
                titles,
            )
    options = Options(style=style.value, outline=outline, names=names, width=width)
    draw(lambda: compare_figure(found, options), out, dpi)
    _write_facts(out.with_suffix(".json"), found, facts)
    if not quiet:
        _report(out, found)


def _refuse_evaluations(inputs: Sequence[str]) -> None:
    """Raise InputError where an input is the folder of an evaluation: among its files are figures, but no images."""
    from headclip.errors import InputError
    from headclip.evaluation.checks import RUNS
    from headclip.evaluation.outputs import RESULTS
    from headclip.runs.run import is_run_folder

    for entry in inputs:
        runs = Path(entry, RUNS)
        if Path(entry, RESULTS).is_file() and runs.is_dir():
            found = [
                folder for pattern in ("*", "*/*") for folder in sorted(runs.glob(pattern)) if is_run_folder(folder)
            ]
            names = ", ".join(map(str, found[:3])) or "it has none"
            raise InputError(f"{entry} is an evaluation; name the runs in it: {names}")


def _of_runs(
    inputs: Sequence[str],
    folders: Sequence[str],
    method: str | None,
    checkpoint: Sequence[str] | None,
    truths: TruthFinder,
    choose: Choice | None,
    chosen: dict[str, Any],
    show: Callable[[str, int, int], None],
    wanted: str | None,
) -> tuple[Comparison, dict[str, Any]]:
    from headclip.errors import InputError
    from headclip.inspection.comparison import compare_runs, run_titles
    from headclip.methods.titles import HEADINGS
    from headclip.runs.run import Run

    if len(folders) < len(inputs):
        other = next(entry for entry in inputs if entry not in folders)
        raise InputError(f"{folders[0]} is a run folder and {other} is not; compare runs, or images, not both at once")
    if method or checkpoint:
        raise InputError("--method and --checkpoint are for images; the runs say themselves what made them")
    runs = [Run.open(folder) for folder in folders]
    titles = run_titles([Path(folder) for folder in folders], runs, HEADINGS)
    shown = _titles(wanted, titles)
    rule: Rule = choose.value if choose else ("different" if len(runs) > 1 else "anomalous")
    found = compare_runs(dict(zip(titles, runs, strict=True)), truths, rule=rule, progress=show, **chosen)
    return replace(found, columns=shown), {"runs": dict(zip(titles, map(str, folders), strict=True))}


def _of_methods(
    inputs: Sequence[str],
    method: str | None,
    checkpoints: Sequence[str] | None,
    model: dict[str, Any],
    truths: TruthFinder,
    choose: Choice | None,
    chosen: dict[str, Any],
    show: Callable[[str, int, int], None],
    wanted: str | None,
) -> tuple[Comparison, dict[str, Any]]:
    from headclip.cli.figures_models import open_columns
    from headclip.evaluation.outputs import short_facts
    from headclip.inspection.comparison import compare_methods

    images = _images(inputs, truths)
    detectors: dict[str, Detector] = open_columns(method, list(checkpoints or []), **model)
    shown = _titles(wanted, list(detectors))  # before any image is judged
    rule: Rule = choose.value if choose else "first"
    found = compare_methods(detectors, images, truths, rule=rule, progress=show, **chosen)
    facts = {title: short_facts(detector.describe()) for title, detector in detectors.items()}
    return replace(found, columns=shown), {"methods": facts}


def _images(inputs: Sequence[str], truths: TruthFinder) -> list[ImageFile]:
    """The images named, without masks that lie among them; those of the datasets where none is named."""
    from headclip.data.discover import discover
    from headclip.errors import InputError
    from headclip.inspection.truth import without_masks

    if not inputs and not truths.images:
        raise InputError("nothing to show; name images, run folders, or a dataset with --data NAME=PATH")
    images = without_masks(list(discover(inputs))) if inputs else truths.images
    if truths and not any(truths.knows(image) for image in images):
        where = truths.folder or "the dataset"
        raise InputError(f"{where} has ground truth for none of the {len(images)} image(s); names must agree")
    return images


def _titles(wanted: str | None, columns: Sequence[str]) -> tuple[str, ...]:
    """What the columns are called: as `--titles` says, else as they are."""
    from headclip.errors import InputError

    if wanted is None:
        return tuple(columns)
    given = tuple(title.strip() for title in wanted.split(","))
    if len(given) != len(columns):
        raise InputError(f"--titles has {len(given)} titles for {len(columns)} columns: {', '.join(columns)}")
    return given


def _write_facts(path: Path, found: Comparison, facts: dict[str, Any]) -> None:
    """What the figure does not say: whole names, all digits, how the images were chosen, what made the maps."""
    from headclip.files import write_atomically
    from headclip.inspection import plain
    from headclip.version import __version__

    images = [
        {
            "name": image.name,
            "height": image.size[0],
            "width": image.size[1],
            "label": image.truth.label,
            "category": image.truth.category,
            "scores": dict(zip(found.columns, image.scores, strict=True)),
        }
        for image in found.images
    ]
    content = {
        "headclip": __version__,
        "columns": list(found.columns),
        "chosen": {"rule": found.rule, "of": found.candidates},
        "colours": {"kind": found.kind, **_colour_facts(found)},
        "images": images,
        "left_out": [{"name": name, "reason": reason} for name, reason in found.left_out],
        **facts,
    }
    write_atomically(path, json.dumps(plain(content), indent=2, default=str) + "\n", follow=True)


def _colour_facts(found: Comparison) -> dict[str, Any]:
    """For each column, the map values that colours stand for."""
    from headclip.inspection.scales import TAIL, RankScale
    from headclip.runs.overlay import Scale

    facts: dict[str, Any] = {}
    for title, colours in zip(found.columns, found.colours, strict=True):
        if isinstance(colours, Scale):
            facts[title] = {"first": colours.low, "last": colours.high}
        elif isinstance(colours, RankScale):
            facts[title] = {f"highest {100 * tail:g} %": at for tail, at in zip(TAIL, colours.thresholds, strict=True)}
    return facts


def _report(out: Path, found: Comparison) -> None:
    console = output()
    for name, reason in found.left_out:
        console.print(f"left out {name}: {reason}", soft_wrap=True)
    for title, facts in _colour_facts(found).items():
        values = ", ".join(f"{name} {value:.4f}" for name, value in facts.items())
        console.print(f"colours of {title} in map values: {values}", soft_wrap=True)
    console.print(f"{len(found.images)} of {found.candidates} images ({found.rule}): {out}", soft_wrap=True)
