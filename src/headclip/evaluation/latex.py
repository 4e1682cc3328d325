"""Tables for a paper: datasets in the layout of its Tables 1-3, categories in that of its appendix.

Packages: booktabs, and graphicx, which makes a table that is wider than the text as narrow as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headclip.evaluation.markdown import footnotes, levels
from headclip.evaluation.scoring import DatasetResult
from headclip.evaluation.tables import DAGGER, LEGEND, LETTERS, PAPER_METHODS, TableRow, cell

_AS_WIDE_AS_THE_TEXT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"
"""Before a box: one that is wider than the text is made smaller, others stay as they are."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    DAGGER: r"\dag{}",
}


def escape(text: str) -> str:
    """Plain text for LaTeX.

    >>> escape("50 % of metal_nut")
    '50 \\\\% of metal\\\\_nut'
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def latex(results: Sequence[DatasetResult], rows: Sequence[TableRow], facts: Mapping[str, Any]) -> str:
    """All tables of an evaluation."""
    lines = [r"% needs \usepackage{booktabs,graphicx}", *(f"% {key}: {value}" for key, value in facts.items())]
    lines += [f"% WARNING: {result.leakage}" for result in results if result.leakage]
    shared = " ".join(f"{DAGGER} {result.leakage}." for result in results if result.leakage)
    summary = _summary(rows)
    parts = ["\n".join(lines), _table(summary, f"Results by dataset. {LEGEND}. {shared}".strip(), "datasets")]
    for name in dict.fromkeys(result.name for result in results):
        own = [row for row in rows if row.dataset == name and row.kind in ("category", "mean")]
        if sum(row.kind == "category" for row in own) > sum(row.kind == "mean" for row in own):
            caption = f"{own[0].title} by category. {LEGEND}. {shared}"
            paper = [row for row in rows if row.dataset == name and _is_paper(row)]
            parts.append(_table(_by_category(own, paper), caption.strip(), f"categories-{name}"))
    return "\n\n".join(parts) + "\n"


def _summary(rows: Sequence[TableRow]) -> list[TableRow]:
    """Means and averages, with the paper's methods beside them."""
    return [row for row in rows if row.kind in ("mean", "average") or (_is_paper(row) and not row.category)]


def _by_category(own: Sequence[TableRow], paper: Sequence[TableRow]) -> list[TableRow]:
    """Our rows and the paper's, category by category, the mean last."""
    names = [*dict.fromkeys(row.category for row in own if row.category), ""]
    return [row for name in names for row in (*own, *paper) if row.category == name]


def _is_paper(row: TableRow) -> bool:
    return row.kind == "published" and row.source.startswith("HeadCLIP") and row.method in PAPER_METHODS


def _table(rows: Sequence[TableRow], caption: str, label: str) -> str:
    image, pixel = levels(rows)
    names, numbers = (*image, *pixel), footnotes(rows)
    groups = [(len(image), "Image"), (len(pixel), "Pixel")]
    spans = [rf"\multicolumn{{{count}}}{{c}}{{{title}}}" for count, title in groups if count]
    columns = "ll" + "r" * len(names)
    lines = [
        r"\begin{table}[t]",
        rf"\caption{{{escape(caption)}}}",
        rf"\label{{tab:{_label(label)}}}",
        r"\centering\small\setlength{\tabcolsep}{3pt}",
        rf"{_AS_WIDE_AS_THE_TEXT}{{\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(["", "", *spans]) + r" \\",
        " & ".join(["", "Method", *(LETTERS[name] for name in names)]) + r" \\",
        r"\midrule",
    ]
    previous = ""
    for row in rows:
        title = row.category or (row.title if label == "datasets" else "mean")
        notes = "".join(rf"$^{{{numbers[mark]}}}$" for mark in row.marks)
        shown = "" if title == previous else escape(title)
        shown = rf"{{}}{shown}" if shown.startswith(("[", "*")) else shown  # else an option of the line end above
        previous = title
        lines.append(" & ".join([shown, escape(row.method) + notes, *(cell(row, name) for name in names)]) + r" \\")
        if row.intervals:
            lines.append(" & ".join(["", "", *(_interval(row, name) for name in names)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [rf"\\ \footnotesize $^{{{number}}}$ {escape(mark)}" for mark, number in numbers.items()]
    return "\n".join([*lines, r"\end{table}"])


def _label(name: str) -> str:
    """What \\ref can take: nothing that means something to LaTeX."""
    return "".join(letter if letter.isalnum() or letter in "-.:" else "-" for letter in name)


def _interval(row: TableRow, name: str) -> str:
    if name not in row.intervals:
        return ""
    low, high = row.intervals[name]
    return rf"{{\tiny [{low:.1f}, {high:.1f}]}}"
