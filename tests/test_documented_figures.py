"""Figures of the embedded model in prose are those of the tables that the commands wrote."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the documents are not here")

# How each set is called in the card's table, README's paragraph, and the columns of the history.
CARD = {
    "rendered, unseen seeds": "rendered-b",
    "KolektorSDD": "sdd",
    "BrainMRI": "brainmri",
    "Kvasir-SEG": "kvasir",
    "ISIC 2018": "isic2018",
    "ELPV solar cells": "elpv",
    "simulated textiles": "conformal",
}
README = {
    r"image AUROC (\S+) % on textiles": ("conformal", "image_auroc"),
    r"interval (\S+) to \S+\)": ("conformal", "image_auroc_low"),
    r"interval \S+ to (\S+)\)": ("conformal", "image_auroc_high"),
    r"(\S+) on KolektorSDD, \S+ on BrainMRI": ("sdd", "image_auroc"),
    r"(\S+) on BrainMRI": ("brainmri", "image_auroc"),
    r"(\S+) on ELPV": ("elpv", "image_auroc"),
    r"pixel AUROC (\S+) on KolektorSDD": ("sdd", "pixel_auroc"),
    r"(\S+) on a part of ISIC": ("isic2018", "pixel_auroc"),
    r"(\S+) on a part of Kvasir": ("kvasir", "pixel_auroc"),
    r"(\S+) on rendered images": ("rendered-b", "pixel_auroc"),
}
HISTORY = [
    "sdd image",
    "sdd pixel",
    "brainmri image",
    "kvasir pixel",
    "isic2018 pixel",
    "elpv image",
    "conformal image",
]


@pytest.fixture(scope="module")
def measured():
    """{set: {column: percent}} of the tables that `headclip evaluate` wrote."""
    return means("real/tables", "rendered/tables")


def means(*names):
    found = {}
    for name in names:
        with (ROOT / "docs/results" / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["kind"] == "mean" and row["method"] == "headclip"]
        found.update({row["dataset"]: row for row in rows if row["dataset"]})
    return found


def with_interval(row, column):
    """As the card writes it; "" where the set has no such figure."""
    if not row[column]:
        return ""
    value, low, high = (f"{float(row[column + end]):.1f}" for end in ("", "_low", "_high"))
    return f"{value} ({low} to {high})"


def table_rows(text):
    """The cells of every line of every table."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_card(measured):
    text = (ROOT / "docs/embedded.md").read_text(encoding="utf-8").partition("## How good it is")[2]
    rows = [cells for cells in table_rows(text) if len(cells) == 5]
    for name, dataset in CARD.items():
        row = measured[dataset]
        precision = f"{float(row['pixel_ap']):.1f}" if row["pixel_ap"] else ""
        expected = [with_interval(row, "image_auroc"), with_interval(row, "pixel_auroc"), precision]
        assert next(cells[1:4] for cells in rows if cells[0].startswith(name)) == expected, name


@pytest.mark.parametrize("pattern", README)
def test_the_readme(measured, pattern):
    text = " ".join(
        (ROOT / "README.md").read_text(encoding="utf-8").partition("The embedded model, measured")[2].split()
    )
    dataset, column = README[pattern]
    assert re.search(pattern, text).group(1).rstrip(",") == f"{float(measured[dataset][column]):.1f}"


def test_the_last_version_of_the_history(measured):
    text = (ROOT / "docs/embedded-history.md").read_text(encoding="utf-8").partition("## Versions on real sets")[2]
    last = [cells for cells in table_rows(text) if len(cells) == 1 + len(HISTORY)][-1]
    expected = [
        f"{float(measured[dataset][f'{level}_auroc']):.1f}" for dataset, level in (words.split() for words in HISTORY)
    ]
    assert last[1:] == expected


def test_images_compared_with_each_other():
    """Two rows a set: each image by itself, and compared."""
    halves = [means(f"alike/{half}", f"alike/products-{half}") for half in ("alone", "compared")]
    names = dict(CARD) | {"52 rendered products": "products"}
    rows = [cells for cells in table_rows((ROOT / "docs/alike.md").read_text(encoding="utf-8")) if len(cells) == 5][2:]
    assert len(rows) == 2 * len(halves[0])
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        dataset = next(known for name, known in names.items() if first[0].startswith(name))
        for cells, half in zip((first, second), halves, strict=True):
            row = half[dataset]
            precision = f"{float(row['pixel_ap']):.1f}" if row["pixel_auroc"] else ""
            assert cells[2:] == [with_interval(row, "image_auroc"), with_interval(row, "pixel_auroc"), precision]


def test_a_few_normal_images():
    """The rows of the page are rows of the table, and what the card says of eight images is there too."""
    whole = table_rows((ROOT / "docs/results/references/table.md").read_text(encoding="utf-8"))
    shown = [
        cells for cells in table_rows((ROOT / "docs/references.md").read_text(encoding="utf-8")) if len(cells) == 5
    ]
    assert len(shown) > 16
    assert all(cells in whole for cells in shown)
    lines = table_rows((ROOT / "docs/results/references/thresholds.md").read_text(encoding="utf-8"))
    held = [cells for cells in table_rows((ROOT / "docs/references.md").read_text(encoding="utf-8")) if len(cells) == 8]
    assert held == lines
    assert len(lines) > 8
    card = " ".join((ROOT / "docs/embedded.md").read_text(encoding="utf-8").split())
    found = {(cells[0], cells[1]): [cell.split(" ")[0] for cell in cells[2:]] for cells in whole}
    cells_before, cells_after = found["ELPV solar cells", "zero-shot"][0], found["ELPV solar cells", "8"][0]
    before, after = found["KolektorSDD", "zero-shot"], found["KolektorSDD", "8"]
    assert f"ELPV's cells go from {cells_before} to {cells_after} in images" in card
    assert f"KolektorSDD from {before[0]} to {after[0]} and in pixels from {before[1]} to {after[1]}" in card
    assert f"(8 of them: solar cells {cells_after} %, KolektorSDD {after[0]} %)" in card
