"""Options that several commands have."""

import pytest
import typer
from typer.testing import CliRunner

from headclip.cli.options import BatchSize, overlap_of
from headclip.errors import InputError


@pytest.fixture
def answer():
    app = typer.Typer()

    @app.command()
    def show(batch_size: BatchSize = None) -> None:
        typer.echo(f"batch size {batch_size}")

    return lambda *given: CliRunner().invoke(app, list(given))


@pytest.mark.parametrize(("given", "taken"), [((), None), (("--batch-size", "auto"), None), (("--batch-size", "8"), 8)])
def test_batch_sizes(answer, given, taken):
    assert answer(*given).output == f"batch size {taken}\n"


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1.5", ""])
def test_wrong_batch_sizes(answer, wrong):
    result = answer("--batch-size", wrong)
    assert result.exit_code == 2
    assert "neither auto nor a whole number" in result.output


def test_an_overlap_is_one_of_tiles():
    assert (overlap_of(False, None), overlap_of(True, None), overlap_of(True, 0.0)) == (None, 0.25, 0.0)
    with pytest.raises(InputError, match="add --tile"):
        overlap_of(False, 0.5)
