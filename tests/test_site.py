"""The site of the documents: every page has its place, and the reference names what there is."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import headclip
from headclip.data.decode import decode
from test_repository import resolve

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
REFERENCE = sorted((DOCS / "reference").glob("*.md"))


def pages(entries: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    for entry in [entries] if isinstance(entries, str) else entries:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from pages(below)


def test_every_page_has_its_place_in_the_navigation():
    found = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(pages(SITE["nav"])) == sorted(found)


def test_a_warning_ends_the_build_and_no_other_host_is_asked():
    assert SITE["strict"] is True
    assert SITE["theme"]["font"] is False
    assert "offline" not in SITE["plugins"]  # it fetches a script
    assert not {"extra_javascript", "extra_css"} & set(SITE)


def directives(page: Path) -> list[str]:
    """The names whose descriptions a page of the reference takes from the source."""
    return re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("page", REFERENCE, ids=lambda path: path.name)
def test_the_reference_names_what_there_is(page):
    for name in directives(page):
        found = resolve(name)
        assert (found.__doc__ or "").strip(), name


def test_the_public_names_are_in_the_reference():
    documented = {name.rpartition(".")[2] for page in REFERENCE for name in directives(page)}
    documented |= {"HeadclipError", "__version__"}  # with the module of errors; and a string
    assert set(headclip.__all__) <= documented


@pytest.mark.parametrize("picture", sorted((DOCS / "pictures").glob("tutorial-*.webp")), ids=lambda path: path.stem)
def test_pictures_of_the_tutorial_are_small_and_shown(picture):
    assert picture.stat().st_size < 250_000
    assert min(decode(picture).shape[:2]) >= 390
    assert f"pictures/{picture.name}" in (DOCS / "tutorial.md").read_text(encoding="utf-8")


def test_links_out_of_the_documents_become_words_on_the_site():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / SITE["hooks"][0])
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    def shown(markdown, place):
        return hooks.on_page_markdown(markdown, page=SimpleNamespace(file=SimpleNamespace(src_uri=place)))

    assert shown("[a](../README.md#x), [b](../LICENSE), [c](paper.md)", "serve.md") == "[a](index.md), b, [c](paper.md)"
    assert shown("[a](../paper.md), [b](../../LICENSE)", "reference/index.md") == "[a](../paper.md), b"
    assert shown("CoOp [1] [2]", "results/real/tables.md") == r"CoOp \[1\] \[2\]"
