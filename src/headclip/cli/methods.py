"""`headclip methods`: what can be run, what each method learns and what it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headclip.cli.common import output

if TYPE_CHECKING:
    from headclip.methods.base import Method


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show the settings of this method.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the methods: what each is, what training changes, and what it needs.

    With NAME, list the settings that --set takes, with their defaults.
    """
    from headclip.methods import list_methods
    from headclip.methods.base import method_class

    names = list_methods() if name is None else [name]
    facts = [describe(method_class(item), settings=name is not None) for item in names]
    if as_json:
        typer.echo(json.dumps(facts if name is None else facts[0], indent=2))
    elif name is None:
        _print_list(facts)
    else:
        _print_one(facts[0])


def describe(cls: type[Method], settings: bool = False) -> dict[str, Any]:
    """What is known of a method without building it."""
    from dataclasses import MISSING, fields

    from headclip.methods import TrainableMethod

    needs = ["a text tower"] if cls.needs_text else []
    if issubclass(cls, TrainableMethod):
        needs.append("a checkpoint")
    uses = ["--category"] * cls.uses_category + ["--reference"] * cls.takes_references + ["--peers"] * cls.takes_peers
    facts: dict[str, Any] = {
        "name": cls.name,
        "summary": cls.summary,
        "trains": cls.learns or None,
        "needs": needs,
        "uses": uses,
    }
    if settings:
        facts["settings"] = {
            item.name: item.default_factory() if item.default_factory is not MISSING else item.default
            for item in fields(cls.config_class)
        }
    return facts


def _print_list(facts: list[dict[str, Any]]) -> None:
    console = output()
    width = 2 + max(len(fact["name"]) for fact in facts)
    for fact in facts:
        console.print(f"{fact['name']:{width}}{fact['summary']}", soft_wrap=True)
        console.print(f"{'':{width}}{_facts_line(fact)}", soft_wrap=True)
    console.print(
        "\nA checkpoint comes from headclip train --method NAME. --category says what the images show (default: "
        "object);\n--reference gives a few normal images to compare with; --peers compares images of one kind with "
        "each other.\n"
        "headclip methods NAME lists its settings.",
        soft_wrap=True,
    )


def _facts_line(fact: dict[str, Any]) -> str:
    parts = [f"trains: {fact['trains'] or 'nothing'}", f"needs: {', '.join(fact['needs']) or 'nothing'}"]
    return "; ".join(parts + ([f"uses: {', '.join(fact['uses'])}"] if fact["uses"] else []))


def _print_one(fact: dict[str, Any]) -> None:
    console = output()
    console.print(f"{fact['name']}: {fact['summary']}", soft_wrap=True)
    console.print(_facts_line(fact), soft_wrap=True)
    console.print("settings, for --set NAME=VALUE:")
    for name, value in fact["settings"].items():
        console.print(f"  {name}={json.dumps(value)}", soft_wrap=True)
