"""What mkdocs asks before it renders a page; see mkdocs.yml."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Say to the site what is plain in the repository, where the documents are read as files."""
    source = PurePosixPath(page.file.src_uri)
    if source.parts[0] == "results":  # footnotes stand as [2] in tables; [1] [2] would be a link without a target
        markdown = re.sub(r"\[(\d+)\](?!\()", r"\\[\1\\]", markdown)
    return _LINK.sub(lambda link: _inside(link, source), markdown)


def _inside(link: re.Match[str], source: PurePosixPath) -> str:
    """A link that leaves docs/ as words alone, or for the README to the site's first page."""
    depth = len(source.parts) - 1  # of the page below docs/
    target = PurePosixPath(link.group(2))
    ups = len([part for part in target.parts if part == ".."])
    if ups <= depth:
        return link.group(0)
    if target.name == "README.md" and ups == depth + 1:
        return f"[{link.group(1)}]({'../' * depth}index.md)"
    return link.group(1)
