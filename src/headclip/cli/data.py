"""`headclip data`: which datasets are known, whether a copy is sound, and the synthetic set as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headclip.cli.common import EXIT_FAILED, output
from headclip.cli.options import Quiet
from headclip.cli.progress import count_bar

if TYPE_CHECKING:
    from headclip.data.check import CheckReport

app = typer.Typer(
    help="List, check and make datasets.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.command("list")
def list_datasets(
    paper: Annotated[bool, typer.Option("--paper", help="Only the seventeen of the HeadCLIP paper.")] = False,
    details: Annotated[
        bool, typer.Option("--details", help="Also where each comes from and which folders are expected.")
    ] = False,
) -> None:
    """Show every dataset that NAME=PATH may name, with the test images it should hold."""
    from rich.table import Table

    from headclip.data.datasets import datasets

    infos = [info for info in datasets() if info.paper or not paper]
    console = output()
    if details:
        for info in infos:
            console.print(f"{info.name}: {info.title}", style="bold")
            facts = {"source": info.source, "licence": info.licence, "expects": info.layout, "note": info.remark}
            for label, fact in facts.items():
                if fact:
                    console.print(f"  {label}: {fact}", soft_wrap=True)
        return
    for domain in dict.fromkeys(info.domain for info in infos):
        title = "Your own data" if domain == "any" else domain.capitalize()
        table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
        table.add_column("name", no_wrap=True, min_width=15)
        table.add_column("dataset", min_width=28)
        table.add_column("metrics", no_wrap=True)
        for heading in ("normal", "anomalous"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("paper")
        for info in (info for info in infos if info.domain == domain):
            numbers = (_number(info.normal), _number(info.anomalous))
            table.add_row(info.name, info.title, info.level, *numbers, "yes" if info.paper else "")
        console.print(table)


@app.command()
def check(
    data: Annotated[str, typer.Argument(metavar="NAME=PATH", help="A known dataset, or a path alone.")],
    quick: Annotated[bool, typer.Option("--quick", help="Names and counts only; read no pixels.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Name every file, not the first five of a kind.")] = False,
) -> None:
    """Compare a copy with what it should be: counts, masks, sizes, damaged and identical files.

    Exit status: 0 nothing wrong, 1 problems, 2 not this dataset or wrong usage.
    """
    import logging

    from headclip.data.check import check_dataset
    from headclip.data.datasets import open_spec

    log = logging.getLogger("headclip.data.datasets")
    level = log.level
    log.setLevel(logging.ERROR)  # the table says it all
    try:
        dataset = open_spec(data, lenient=True)
    finally:
        log.setLevel(level)
    with count_bar("reading") as advance:
        report = check_dataset(dataset, pixels=not quick, progress=advance)
    _print_report(report, every)
    if not report.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def synth(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to; an unfinished set continues.")],
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many pictures.")] = 1000,
    size: Annotated[int, typer.Option("--size", min=32, help="Side in pixels.")] = 224,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed gives other pictures.")] = 0,
    defect_rate: Annotated[
        float, typer.Option("--defect-rate", min=0, max=1, help="Share of pictures with a defect.")
    ] = 0.5,
    family: Annotated[str | None, typer.Option(help="Scenes of this family alone, such as leather.")] = None,
    defect: Annotated[str | None, typer.Option(help="Defects of this kind alone, such as crack.")] = None,
    photographs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Sound surfaces and things (PNG with opacity) to draw the defects on."),
    ] = None,
    photograph_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of pictures that show them, with --photographs.")
    ] = 1.0,
    quiet: Quiet = False,
) -> None:
    """Write rendered inspection pictures with exact masks and captions, as MVTec folders."""
    from headclip.data.synthetic.photographs import Photographs
    from headclip.data.write_synthetic import write_synthetic

    with count_bar("rendering", quiet) as advance:
        written = write_synthetic(
            out,
            count,
            size,
            seed,
            defect_rate,
            family=family,
            defect=defect,
            photographs=None if photographs is None else Photographs(photographs, photograph_share),
            progress=lambda done: advance(done, count),
        )
    known = written.total - written.new
    if not quiet:
        output().print(f"{out}: {written.total:,} pictures, {written.new:,} new, {known:,} already there")


def _print_report(report: CheckReport, every: bool) -> None:
    from rich.table import Table

    console, dataset = output(), report.dataset
    console.print(f"{dataset.info.title} in {dataset.root}", soft_wrap=True)
    console.print(f"Version: {report.version}", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("category")
    for heading in ("normal", "expected", "anomalous", "expected", "masks"):
        table.add_column(heading, justify="right")
    for row in report.rows:
        normal, anomalous = row.expected or (None, None)
        cells = (row.found[0], normal, row.found[1], anomalous, row.masks)
        table.add_row(row.category, *map(_number, cells))
    total, info = dataset.total(), dataset.info
    if len(report.rows) != 1:
        masks = sum(row.masks for row in report.rows)
        table.add_row("all", *map(_number, (total[0], info.normal, total[1], info.anomalous, masks)), style="bold")
    console.print(table)
    _print_findings(report, every)
    read = "every file was read" if report.pixels_read else "no pixels were read"
    found = f"{len(report.problems)} problem(s)" if report.problems else "No problems"
    console.print(f"{found}; {len(dataset):,} images, {read}.")


def _print_findings(report: CheckReport, every: bool) -> None:
    console = output()
    kinds = dict.fromkeys((finding.severity, finding.kind) for finding in report.findings)
    for severity, kind in kinds:
        messages = [finding.message for finding in report.findings if finding.kind == kind]
        console.print(f"{severity}: {kind} ({len(messages):,})", style="bold" if severity != "note" else None)
        shown = messages if every else messages[:5]
        for message in shown:
            console.print(f"  {message}", soft_wrap=True)
        if len(messages) > len(shown):
            console.print(f"  and {len(messages) - len(shown):,} more; --all names them")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
