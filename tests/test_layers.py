"""Imports go one way: a package knows those below it alone, also where it imports only when called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import headclip

ROOT = Path(headclip.__file__).parent
LAYERS = (
    ("clip", "data", "metrics"),
    ("methods", "judgement"),
    ("training", "runs"),
    ("inference",),
    ("evaluation", "inspection", "export"),
    ("ablation", "engine", "figures"),
    ("web",),
    ("cli",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
ENTRIES = ("__init__", "__main__", "demo")  # modules beside the packages that use them; all others are below


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and package (or module beside the packages) of each import of the project."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "headclip":
            names = [f"headclip.{alias.name}" for alias in node.names]
        else:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if name.startswith("headclip."):
                yield node.lineno, name.split(".")[1]


def test_every_package_has_a_layer():
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(LEVELS)


@pytest.mark.parametrize("package", LEVELS)
def test_a_package_imports_only_what_is_below_it(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, other in _imported(path)
        if other != package and (LEVELS.get(other, -1) >= LEVELS[package] or other in ENTRIES)
    ]
    assert wrong == []


def test_modules_beside_the_packages_import_none_of_them():
    wrong = [
        f"{path.name}:{line} imports {other}"
        for path in sorted(ROOT.glob("*.py"))
        if path.stem not in ENTRIES
        for line, other in _imported(path)
        if other in LEVELS
    ]
    assert wrong == []
