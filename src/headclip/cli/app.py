"""The `headclip` command and its list of subcommands."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from headclip.cli.ablate import ablate
from headclip.cli.calibrate import calibrate
from headclip.cli.common import readable_errors
from headclip.cli.compare import compare
from headclip.cli.data import app as data_app
from headclip.cli.doctor import doctor
from headclip.cli.evaluate import evaluate
from headclip.cli.export import export
from headclip.cli.help_sections import SectionedCommand
from headclip.cli.inspect import inspect
from headclip.cli.merge import merge
from headclip.cli.methods import methods
from headclip.cli.predict import predict
from headclip.cli.pretrain import pretrain
from headclip.cli.protocol import protocol
from headclip.cli.regions import regions
from headclip.cli.rejudge import rejudge
from headclip.cli.serve import serve
from headclip.cli.train import train
from headclip.errors import InputError
from headclip.version import __version__

app = typer.Typer(
    name="headclip",
    help="Zero-shot image anomaly detection with CLIP.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headclip {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    """Zero-shot image anomaly detection with CLIP."""


for _command in (
    *(predict, merge, calibrate, rejudge, regions, serve, evaluate, protocol, ablate, train, pretrain, export),
    *(methods, compare, inspect, doctor),
):
    app.command(cls=SectionedCommand)(_command)
app.add_typer(data_app, name="data")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command with `arguments` (those of the process by default) and exit.

    Exit status: 0 done, 1 nothing could be done, 2 wrong usage or input, 130 interrupted. SIGTERM, by which schedulers
    end a job, interrupts as Ctrl-C does: what is done is kept, and can be gone on with. A server that has started
    answers it with an end like any other, 0.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with _sigterm_interrupts(), readable_errors():
        _refuse_empty(given)
        app(args=given, prog_name="headclip")


def _refuse_empty(given: Sequence[str]) -> None:
    """An empty argument comes from a variable without a value, and as a path it would be the current folder.

    Raises:
        InputError: there is one.
    """
    for before, argument in itertools.pairwise(["headclip", *given]):
        name = f"the argument after {before}" if argument == "" else argument.removesuffix("=")
        if argument == "" or (argument.startswith("--") and argument == f"{name}=" and "=" not in name):
            raise InputError(f"{name} is empty, perhaps by a variable that is not set; . is the current folder")


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt inside, and afterwards what it was: there is nothing left to keep then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
