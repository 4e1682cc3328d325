"""--help in sections: nothing is lost, nothing is named that is not there."""

from __future__ import annotations

import re

import pytest
import typer

from commands import run
from headclip.cli.app import app
from headclip.cli.help_sections import FEW, SECTIONS

COMMANDS = typer.main.get_command(app).commands
PLACED = [name for names in SECTIONS.values() for name in names]


def test_every_name_is_that_of_some_option_and_has_one_place():
    assert len(PLACED) == len(set(PLACED))
    assert set(PLACED) <= {param.name for command in COMMANDS.values() for param in command.params}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "data"])
def test_every_option_is_shown_once(name, capsys):
    run(name, "--help")
    shown = capsys.readouterr().out
    options = [param for param in COMMANDS[name].params if param.param_type_name == "option"]
    listed = shown.partition("\nOptions:\n")[2]
    for option in options:
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[0]}\b(?!-)", listed, flags=re.MULTILINE)) == 1, option.opts
    headings = re.findall(r"^(\w.*):$", shown, flags=re.MULTILINE)
    assert headings.index("Options") == headings.index("Arguments") + 1 if "Arguments" in headings else True
    assert any(heading in SECTIONS for heading in headings) == (len(options) + 1 > FEW)
    assert "Traceback" not in shown


def test_a_section_stands_under_its_heading(capsys):
    run("predict", "--help")
    shown = capsys.readouterr().out
    decisions = shown.partition("\nDecisions:\n")[2].partition("\n\n")[0]
    assert "--threshold" in decisions
    assert "--backbone" not in decisions
