"""`headclip ablate`: one of the paper's ablations, from training to table and plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli import options as shared
from headclip.cli.common import EXIT_FAILED, Device, Precision, command_line, error_line, output, parse_settings
from headclip.cli.options import Protocol
from headclip.cli.progress import guarded

if TYPE_CHECKING:
    from headclip.ablation.definitions import Ablation
    from headclip.ablation.run import AblationOptions, Outcome

NAMES = "lhw|layers|init|modules|jas|attention|prompts|aggregation|methods"


def ablate(
    name: Annotated[str, typer.Argument(metavar=NAMES, help="What to vary.")],
    test: Annotated[
        list[str] | None,
        typer.Option("--eval", "-e", metavar="NAME=PATH", help="A labelled dataset to test on. Repeatable."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for models, records and tables.")
    ] = None,
    data: Annotated[
        str,
        typer.Option("--data", "-d", metavar="synthetic|FOLDER|NAME=PATH", help="What to train on."),
    ] = "synthetic",
    backbone: shared.Backbone = "embedded",
    images: Annotated[int, typer.Option(min=2, help="Images to render, with --data synthetic.")] = 500,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 111,
    data_seed: Annotated[int, typer.Option(min=0, help="Of the rendered images, which all seeds share.")] = 111,
    epochs: Annotated[int | None, typer.Option(min=1, help="As --train epochs=N.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="[METHOD.]NAME=VALUE",
            help="A setting that all rows share: of every trained method that has it, or of one. Repeatable.",
        ),
    ] = None,
    training: Annotated[
        list[str] | None,
        typer.Option(
            "--train", metavar="[METHOD.]NAME=VALUE", help="The same for training: rate, local_weight... Repeatable."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A label, axis, series or method to train and judge; others are left out. Repeatable."
        ),
    ] = None,
    protocol: Annotated[
        Protocol, typer.Option(help="ader: comparable with the published tables; exact: no threshold grid.")
    ] = Protocol.ader,
    resolution: shared.Resolution = None,
    limit: shared.Limit = None,
    image_size: shared.ImageSize = None,
    device: shared.OnDevice = Device.auto,
    precision: shared.InPrecision = Precision.fp32,
    batch_size: shared.BatchSize = None,
    keep_features: Annotated[
        bool,
        typer.Option("--keep-features/--no-keep-features", help="Run the tower once an image for all models."),
    ] = True,
    features_in: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep features on disk instead of in memory.")
    ] = None,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the figure.")] = True,
    allow_leakage: shared.AllowLeakage = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be trained and judged, and stop.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in DIR.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in DIR.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Train, test and tabulate the variants of an ablation, with mean and spread over seeds.

    lhw: Tables 4-6 of the paper; layers: Table 7; init: Table 8; modules: Table 9; jas: Figure 4; attention, prompts:
    AnomalyCLIP's; aggregation: readings A1-A4; methods: Tables 1-3, every method. DIR will hold table.md, table.csv,
    results.json and figure.png. What is done is never done again: --resume goes on where an ablation was stopped.
    """
    from headclip.ablation.definitions import find_ablation
    from headclip.ablation.judging import JudgingSettings
    from headclip.ablation.models import TrainingData
    from headclip.ablation.run import AblationOptions

    ablation = find_ablation(name, only or [])
    options = AblationOptions(
        data=TrainingData(data, images, data_seed),
        seeds=tuple(range(seed, seed + seeds)),
        settings=parse_settings(setting or []),
        train={**parse_settings(training or [], "--train"), **({} if epochs is None else {"epochs": epochs})},
        judging=JudgingSettings(
            protocol=protocol.value,
            resolution=None if resolution is None else resolution.value,
            limit=limit,
            allow_leakage=allow_leakage,
            device=device.value,
            precision=precision.value,
            batch_size=batch_size,
        ),
        image_size=image_size,
        features=features_in or keep_features,
        figures=figures,
        resume=resume,
        overwrite=overwrite,
    )
    if plan:
        _print_plan(ablation, backbone, options)
        return
    outcome = _run(ablation, backbone, test or [], out, options, quiet)
    if not quiet:
        _print(outcome)
    _report_failures(outcome)


def _run(
    ablation: Ablation, backbone: str, test: list[str], out: Path | None, options: AblationOptions, quiet: bool
) -> Outcome:
    from headclip.ablation.run import ablate as run
    from headclip.clip.weights import load_backbone
    from headclip.data.datasets import open_spec
    from headclip.errors import InputError
    from headclip.inference.device import choose_device

    if not test or out is None:
        raise InputError(
            "an ablation needs a dataset to test on, --eval NAME=PATH, and a folder for the results, --out"
        )
    datasets = [open_spec(spec) for spec in test]
    loaded = load_backbone(backbone, device=choose_device(options.judging.device))
    return guarded(
        lambda progress: run(ablation, loaded, datasets, out, options, command=command_line(), progress=progress), quiet
    )


def _print(outcome: Outcome) -> None:
    from headclip.ablation.run import TABLE

    console = output()
    console.print((outcome.out / TABLE).read_text(encoding="utf-8"), soft_wrap=True)
    for hint in outcome.hints:
        console.print(hint, soft_wrap=True)
    console.print(f"tables, figure and results: {outcome.out}", soft_wrap=True)


def _report_failures(outcome: Outcome) -> None:
    """Say which models could not be trained, and exit with 1 where there are any."""
    if not outcome.failures:
        return
    for failure in outcome.failures:
        error_line(str(failure))
    error_line(
        f"{len(outcome.failures)} model(s) could not be trained; the table has no figures of them. "
        "Another rate (--train rate=...) is one for all rows: use another folder, or --overwrite"
    )
    raise typer.Exit(EXIT_FAILED)


def _print_plan(ablation: Ablation, backbone: str, options: AblationOptions) -> None:
    from headclip.ablation.plan import Settings, make_plan
    from headclip.clip.weights import load_backbone

    config = load_backbone(backbone).config
    made = make_plan(ablation, config, Settings.parse(options.settings), Settings.parse(options.train))
    console = output()
    console.print(f"{ablation.title} ({ablation.table})", soft_wrap=True)
    for row in made.rows:
        learns = row.judge.model.key if row.judge.model.trained else f"{row.judge.model.method}, nothing to train"
        console.print(f"  {row.variant.axis}: {row.variant.label} <- {learns}", soft_wrap=True)
    count = len(options.seeds)
    facts: dict[str, Any] = {
        "models to train": len(made.models) * count,
        "detectors to run": sum(len(judge.seeds(options.seeds)) for judge in made.judges),
    }
    console.print("; ".join(f"{value} {name}" for name, value in facts.items()) + f" ({count} seeds)")
