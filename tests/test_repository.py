"""What the documents say is true: names exist, defaults and commands are as stated, links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from headclip.cli.app import app
from headclip.cli.common import parse_settings
from headclip.clip.backbone import Backbone
from headclip.clip.config import ClipConfig, TextConfig, VisionConfig
from headclip.clip.tokenizer import ClipTokenizer
from headclip.methods import create_method
from headclip.methods.headclip import HeadClipConfig
from headclip.training.train_config import TrainConfig
from headclip.version import __version__

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PAPER = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
CONFIGS = {"HeadClipConfig": HeadClipConfig, "TrainConfig": TrainConfig}
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def code_spans(text: str) -> list[str]:
    """What stands in `backticks`, outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def code_lines(text: str) -> Iterator[str]:
    """Inline code, and the lines of fenced blocks with continuation lines joined."""
    yield from code_spans(text)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()


def resolve(name: str) -> Any:
    """The object that a dotted name such as headclip.clip.vision.VisionTower.forward stands for."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise AttributeError(name)


@each_document
def test_names_exist(document):
    names = [
        match.group(0)
        for span in code_spans(document.read_text(encoding="utf-8"))
        if (match := re.fullmatch(r"headclip(\.\w+)+", span))
    ]
    missing = []
    for name in names:
        try:
            resolve(name)
        except AttributeError:
            missing.append(name)
    assert not missing


def test_a_wrong_name_would_be_noticed():
    assert resolve("headclip.methods.scoring.joint_score").__name__ == "joint_score"
    with pytest.raises(AttributeError):
        resolve("headclip.methods.scoring.no_such_function")


@each_document
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text)
    for target in (first or second for first, second in targets):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), f"{document.name} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"no heading for {target}"


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@each_document
def test_commands_exist(document):
    """Each `headclip COMMAND --option` and each `make TARGET` of a document is one."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE).group(1).split())
    for line in code_lines(document.read_text(encoding="utf-8")):
        words = line.split("#")[0].split()
        if words[:1] == ["make"]:
            assert {word for word in words[1:] if "=" not in word} <= targets, line
        if words[:1] != ["headclip"] or len(words) == 1 or words[1].startswith("-"):
            continue
        assert words[1] in commands, line
        command = commands[words[1]]
        if words[1] == "data" and len(words) > 2 and not words[2].startswith("-"):  # the one group of commands
            assert words[2] in command.commands, line
            command = command.commands[words[2]]
        known = {"--help"}
        for parameter in command.params:
            known |= {*parameter.opts, *parameter.secondary_opts}
        assert {word.split("=")[0] for word in words if word.startswith("-")} <= known, line


@pytest.mark.parametrize("owner", CONFIGS)
def test_every_labelled_setting_is_explained(owner):
    """A field whose comment has a label such as A12 stands in the row of that label in docs/paper.md."""
    module = sys.modules[CONFIGS[owner].__module__]
    source = Path(module.__file__).read_text(encoding="utf-8")
    body = re.split(rf"class {owner}\b[^\n]*:\n", source)[1].split("\n    def ")[0]
    labelled = re.findall(r"^    (\w+):.*?#(.*)$", body, flags=re.MULTILINE)
    checked = 0
    for name, comment in labelled:
        for label in re.findall(r"\bA\d+\b", comment):
            row = re.search(rf"^\| {label} \|.*$", PAPER, flags=re.MULTILINE)
            assert row, f"docs/paper.md has no row for {label}"
            assert re.search(rf"`[^`]*\b{name}\b[^`]*`", row.group(0)), f"{label} does not mention {name}"
            checked += 1
    assert checked


def stated_defaults() -> list[tuple[str, str, str]]:
    """(config, field, value) of each `field=value` in docs/paper.md that states a default."""
    readings = PAPER.split("## Readings")[1].split("\n## ")[0]
    found = []
    for line in readings.splitlines():
        cells = line.split(" | ")
        text = cells[2] if line.startswith("| A") else line  # the column of defaults
        for span in code_spans(text):
            if match := re.fullmatch(r"(?:(\w+)\.)?(\w+)=(.+)", span):
                found.append((match.group(1) or "HeadClipConfig", match.group(2), match.group(3)))
    return found


def test_stated_defaults_are_the_codes():
    stated = stated_defaults()
    for owner, name, value in stated:
        if (owner, name, value) == ("HeadClipConfig", "head_init", '"gaussian"'):
            continue  # the one value that is named as a condition, not as a default
        assert getattr(CONFIGS[owner](), name) == ast.literal_eval(value), f"{owner}.{name}={value}"
    not_models = {"taps", "words"}  # belong to another setting or are quoted in the text
    model = {item.name for item in fields(HeadClipConfig)} - not_models
    assert model <= {name for owner, name, _ in stated if owner == "HeadClipConfig"}
    assert {item.name for item in fields(TrainConfig)} <= {n for o, n, _ in stated if o == "TrainConfig"}


def test_paper_page_is_complete():
    def numbers(section: str) -> list[int]:
        rows = re.findall(r"^\| (\d+)(?: to (\d+))? \|", section, flags=re.MULTILINE)
        return [n for first, last in rows for n in range(int(first), int(last or first) + 1)]

    equations, tables, figures = (
        PAPER.split(f"\n## {title}\n")[1].split("\n## ")[0] for title in ("Equations", "Tables", "Figures")
    )
    assert numbers(equations) == list(range(1, 13))
    assert numbers(tables) == list(range(1, 27))
    assert numbers(figures) == list(range(1, 5))
    assert re.findall(r"^\| (A\d+) \|", PAPER, flags=re.MULTILINE) == [f"A{n}" for n in range(1, 26)]


def test_changelog_knows_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(__version__)}\]", changelog, flags=re.MULTILINE)


def test_constraints_name_one_version_each_and_no_place():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", pin) for pin in pins)  # no +cpu, URL or option
    names = [re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins]
    assert len(names) == len(set(names))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^    \"([A-Za-z0-9_-]+)[><=]", project, flags=re.MULTILINE))
    wanted |= set(re.findall(r"= \[\"([A-Za-z0-9_-]+)>=", project))
    assert "torch" in wanted
    assert {name.replace("_", "-") for name in wanted} <= set(names)


def test_makefile_refuses_an_old_python(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")  # what the version check of an old interpreter answers
    old.chmod(0o755)
    command = ["make", "-C", str(ROOT), "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_settings_of_the_tables_build_the_method():
    """What the page gives as the settings of an ablation is accepted for a tower of the paper's depth."""
    text = TextConfig(16, 12, 2, vocab_size=700)
    config = ClipConfig("deep", 8, VisionConfig(32, 24, 2, 14, 28), text)
    backbone = Backbone(config, ClipTokenizer(700, text.context_length))
    rows = PAPER.split("\n## Tables\n")[1].split("\n## ")[0].splitlines()
    settings = [[span for span in code_spans(row) if "=" in span] for row in rows]
    assert sum(map(len, settings)) >= 6
    for given in filter(None, settings):
        method = create_method("headclip", backbone, {"seed": 1, **parse_settings(given)})
        method.request.check(24)
