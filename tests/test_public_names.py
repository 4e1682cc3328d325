"""What `from headclip import ...` gives, at once to a type checker and on first use to a program."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import headclip


def test_every_name_is_there():
    assert all(hasattr(headclip, name) for name in headclip.__all__)
    assert set(headclip.__all__) <= set(dir(headclip))


def test_type_checkers_see_what_programs_get():
    """Names are imported twice in `__init__`: for type checkers by statements, for programs by a table."""
    source = Path(headclip.__file__)
    assert (source.parent / "py.typed").is_file()
    stated = {
        name.name: getattr(import_module(statement.module or ""), name.name)
        for block in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }
    assert stated == {name: getattr(headclip, name) for name in headclip.__all__ if name != "__version__"}
