"""Tables in every format, beside what has been published."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from headclip.data.datasets import Dataset, datasets, find_dataset
from headclip.data.records import ImageRecord
from headclip.evaluation.bootstrap import Interval, image_replicates, macro_replicates
from headclip.evaluation.latex import escape, latex
from headclip.evaluation.markdown import markdown
from headclip.evaluation.published import published
from headclip.evaluation.scoring import CategoryResult, DatasetResult
from headclip.evaluation.tables import csv_table, parquet_table, table_rows
from headclip.metrics import PROTOCOLS, Figures, macro_average

IMAGE = {"image_auroc": 0.9, "image_ap": 0.8, "image_f1": 0.7}
PIXEL = {"pixel_auroc": 0.6, "pixel_aupro": 0.5, "pixel_ap": 0.4, "pixel_f1": 0.3, "pixel_iou": 0.2}


def category(name, values, shift=0.0):
    figures = Figures({key: value + shift for key, value in values.items()}).add_mad()
    intervals = {key: Interval(value, value - 0.05, value + 0.04, 0.95, 100) for key, value in figures.items()}
    return CategoryResult(name, (), 3, 2, 5, dict.fromkeys(PROTOCOLS, figures), {}, None, (), intervals)


def result(name, tmp_path, values=None, categories=("one",), counts=(3, 2), **facts):
    info = find_dataset(name)
    records = [
        ImageRecord(tmp_path / f"{label}{i}.png", label, None, categories[0])
        for label in (0, 1)
        for i in range(counts[label])
    ]
    given = {**IMAGE, **PIXEL} if values is None else values
    rows = tuple(category(entry, given, 0.01 * number) for number, entry in enumerate(categories))
    mean = {protocol: macro_average([row.figures[protocol] for row in rows]) for protocol in PROTOCOLS}
    intervals = dict(rows[0].intervals)
    return DatasetResult(Dataset(info, tmp_path, records), "headclip", {}, rows, mean, intervals, **facts)


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_the_summary_has_the_layout_of_the_paper(tmp_path):
    second = {name: value - 0.1 for name, value in {**IMAGE, **PIXEL}.items()}
    results = [result("mvtec", tmp_path, categories=("bottle", "cable")), result("mpdd", tmp_path, second)]
    text = markdown(results, table_rows(results, "ader"), {"method": "headclip"})
    header = next(line for line in text.splitlines() if line.startswith("| dataset"))
    letters = [cell.split()[-1] for cell in cells(header)[2:]]
    assert letters == list("RAFMRPAFIM")
    line = next(line for line in text.splitlines() if line.startswith("| MVTec AD"))
    assert cells(line)[2:] == ["90.5", "80.5", "70.5", "80.5", "60.5", "50.5", "40.5", "30.5", "20.5", "40.5"]
    average = next(line for line in text.splitlines() if "average of 2 industrial datasets" in line)
    assert cells(average)[2] == "**85.2**"  # of 90.5 and 80.0
    assert "| bottle | 3 / 2 | 90.0 |" in text
    assert "| **mean** | **6 / 4** | **90.5** |" in text


def test_published_figures_stand_beside_with_the_difference(tmp_path):
    rows = table_rows([result("mvtec", tmp_path, categories=("bottle", "cable"), counts=(467, 1258))], "ader")
    paper = [row for row in rows if row.method == "HeadCLIP" and row.source.endswith("Table 1") and not row.category]
    assert [row.values["pixel_aupro"] for row in paper] == [82.2]
    place = rows.index(paper[0])
    difference = rows[place + 1]
    assert difference.kind == "difference"
    assert difference.values["pixel_aupro"] == pytest.approx(50.5 - 82.2)
    assert paper[0].marks == ()  # the paper's version, complete, under its protocol
    bottle = [row for row in rows if row.category == "bottle" and row.kind == "published"]
    assert {row.method for row in bottle} == {"AnoVL", "AnomalyCLIP", "AdaCLIP", "HeadCLIP"}
    assert next(row for row in bottle if row.method == "HeadCLIP").values["image_auroc"] == 93.8
    # image and pixel figures of one method, in two lines of one table, are one row
    assert sum(row.method == "WinCLIP" and "ICLR" in row.source for row in rows) == 1


@pytest.mark.parametrize(
    ("name", "counts", "protocol", "limit", "words"),
    [
        ("sdd", (347, 52), "ader", None, "another version of sdd"),
        ("mvtec", (3, 2), "ader", None, "3 normal / 2 anomalous images of 467 / 1,258"),
        ("mvtec", (467, 1258), "exact", None, "ADer's threshold grids"),
        ("mvtec", (467, 1258), "ader", 4, "first look"),
    ],
)
def test_what_cannot_be_compared_has_a_footnote(tmp_path, name, counts, protocol, limit, words):
    results = [result(name, tmp_path, counts=counts, limit=limit)]
    rows = table_rows(results, protocol)
    paper = next(row for row in rows if row.method == "HeadCLIP")
    assert any(words in mark for mark in paper.marks), paper.marks
    text = markdown(results, rows, {})
    assert re.search(rf"^\[\d\] .*{re.escape(words)}", text, re.MULTILINE)
    assert words.replace("%", r"\%") in latex(results, rows, {})
    assert words in csv_table(rows)


def test_what_is_not_defined_is_a_dash_and_never_zero(tmp_path):
    results = [result("kvasir", tmp_path, PIXEL), result("brainmri", tmp_path, IMAGE)]
    rows = table_rows(results, "exact")
    text = markdown(results, rows, {})
    line = next(line for line in text.splitlines() if line.startswith("| Kvasir-SEG"))
    assert cells(line)[2:6] == ["-"] * 4
    assert cells(line)[6:] == ["60.0", "50.0", "40.0", "30.0", "20.0", "40.0"]
    lines = list(csv.DictReader(io.StringIO(csv_table(rows))))
    kvasir = next(line for line in lines if line["dataset"] == "kvasir" and line["kind"] == "mean")
    assert kvasir["image_auroc"] == ""
    assert kvasir["pixel_auroc"] == "60.0000"
    average = next(row for row in rows if row.kind == "average")
    assert average.values["image_auroc"] == 90.0
    assert average.values["pixel_mad"] == pytest.approx(40.0)


def test_csv_and_parquet_hold_the_same(tmp_path):
    rows = table_rows([result("mvtec", tmp_path, categories=("bottle", "cable"))], "exact")
    lines = list(csv.DictReader(io.StringIO(csv_table(rows))))
    (tmp_path / "t.parquet").write_bytes(parquet_table(rows))
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.column_names == list(lines[0])
    assert table.num_rows == len(lines) == len(rows)
    for line, row in zip(lines, table.to_pylist(), strict=True):
        for name, value in row.items():
            shown = "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
            assert line[name] == shown
    mean = next(line for line in lines if line["kind"] == "mean")
    assert (mean["image_ap_low"], mean["image_ap_high"]) == ("75.0000", "84.0000")


def rows_of(rows, kind, title):
    return [row for row in rows if row.kind == kind and row.title.startswith(title)]


def test_averages_have_intervals_and_the_papers_beside_them(tmp_path):
    names = [info.name for info in datasets() if info.paper and info.domain == "industrial"]
    counts = {info.name: (info.normal, info.anomalous) for info in datasets()}
    results = [drawn(result(name, tmp_path, counts=counts[name]), seed) for seed, name in enumerate(names)]
    rows = table_rows(results, "ader")
    (average,) = rows_of(rows, "average", "average of 7 industrial")
    low, high = average.intervals["image_auroc"]
    assert low < average.values["image_auroc"] < high
    widths = [interval.high - interval.low for interval in (r.intervals["image_auroc"] for r in results)]
    assert high - low < 100 * np.mean(widths) / 2  # the mean of seven
    papers = {row.method: row for row in rows_of(rows, "published", "average of 7")}
    assert papers["HeadCLIP"].values["pixel_mad"] == 60.5  # as printed
    assert any("pixel M 44.3; with another misprint put right it is 43.7" in mark for mark in papers["AdaCLIP"].marks)
    text = markdown(results, rows, {})
    assert f"| average of 7 industrial datasets |  | {low:.1f}-{high:.1f} |" in text
    assert "Published, average of 7 industrial datasets, and ours minus it" in text
    assert r"{\tiny [" in latex(results, rows, {})
    some = table_rows(results[:3], "ader")
    paper = next(row for row in rows_of(some, "published", "average of 3") if row.method == "HeadCLIP")
    expected = np.mean([published(name, "HeadCLIP", table="1")[0].values["image_ap"] for name in names[:3]])
    assert paper.values["image_ap"] == pytest.approx(expected, abs=0.01)
    assert "mean of its rows of these 3 datasets" in paper.source
    other = [*results[:2], drawn(result("elpv", tmp_path, IMAGE), 9)]
    assert not rows_of(table_rows(other, "ader"), "published", "average")  # no row of theirs to set beside


def drawn(found, seed):
    """With draws of its image figures, as scoring makes them."""
    random = np.random.default_rng(seed)
    labels = np.arange(40) % 2
    replicates = image_replicates(random.normal(size=40) + labels, labels, replicates=60, stream=found.name)
    return replace(found, replicates=(macro_replicates([replicates]),), intervals=replicates.intervals())


def test_medical_averages_stand_beside_two_tables(tmp_path):
    results = [result(name, tmp_path, IMAGE) for name in ("headct", "br35h")]
    results += [result(name, tmp_path, PIXEL) for name in ("isic", "endo")]
    rows = table_rows(results, "ader")
    (average,) = rows_of(rows, "average", "average of 4 medical")
    assert {"image_ap", "pixel_ap"} <= average.values.keys()
    papers = [row for row in rows_of(rows, "published", "average of 4") if row.method == "HeadCLIP"]
    assert [sorted({metric[:5] for metric in row.values}) for row in papers] == [["pixel"], ["image"]]
    assert papers[1].values["image_auroc"] == pytest.approx((95.3 + 97.9) / 2)


def test_several_methods_share_the_published_rows(tmp_path):
    first = result("mpdd", tmp_path, counts=(176, 282))
    second = replace(result("mpdd", tmp_path, {**IMAGE, "image_ap": 0.5}, counts=(176, 282)), method="other")
    rows = table_rows([first, second], "ader")
    paper = [row for row in rows if row.kind == "published" and row.method == "HeadCLIP" and not row.category]
    assert len(paper) == 1
    place = rows.index(paper[0])
    differences = rows[place + 1 : place + 3]
    assert [row.method for row in differences] == ["headclip - HeadCLIP", "other - HeadCLIP"]
    assert differences[1].values["image_ap"] == pytest.approx(50.0 - 79.4)
    text = markdown([first, second], rows, {})
    assert "| *other - HeadCLIP* |" in text
    assert "*difference*" not in text


def test_known_misprints_are_marked(tmp_path):
    rows = table_rows([result("mvtec", tmp_path, categories=("carpet", "screw"), counts=(467, 1258))], "ader")
    adaclip = {row.category: row for row in rows if row.kind == "published" and row.method == "AdaCLIP"}
    assert any("higher than F1-max allows" in mark for mark in adaclip["carpet"].marks)
    assert adaclip["screw"].marks == ()
    sdd = table_rows([result("sdd-anomalyclip", tmp_path, counts=(181, 74))], "ader")
    row = next(row for row in sdd if row.method == "AdaCLIP" and row.source.endswith("Table 1"))
    assert row.marks == ("AdaCLIP: printed is pixel M 26.2; the row's other figures give 22.4",)


def test_the_latex_appendix_sets_every_method_of_the_paper_beside(tmp_path):
    results = [result("mvtec", tmp_path, categories=("carpet", "screw"), counts=(467, 1258))]
    text = latex(results, table_rows(results, "ader"), {})
    body = text[text.index("by category") :]
    rows = [line for line in body.splitlines() if line.endswith(r"\\") and line.count(" & ") == 11]
    lines = [line for line in rows if r"{\tiny [" not in line]  # intervals stand in lines of their own
    methods = [re.sub(r"[$^{}0-9]", "", line.split(" & ")[1]) for line in lines[1:]]
    assert methods == ["headclip", "AnoVL", "AnomalyCLIP", "AdaCLIP", "HeadCLIP"] * 3


def test_the_users_own_data_have_nothing_beside(tmp_path):
    rows = table_rows([result("folder", tmp_path)], "exact")
    assert {row.kind for row in rows} == {"category", "mean"}


def test_leakage_marks_the_method_everywhere(tmp_path):
    results = [result("mvtec", tmp_path, leakage="trained on it")]
    rows = table_rows(results, "exact")
    assert all("†" in row.method for row in rows if row.kind in ("category", "mean", "difference"))
    assert "| MVTec AD † |" in markdown(results, rows, {})
    assert "trained on it" in markdown(results, rows, {})
    text = latex(results, rows, {})
    assert r"headclip \dag{}" in text
    assert "trained on it" in text


def test_latex_is_balanced_and_escaped(tmp_path):
    results = [result("mvtec", tmp_path, categories=("metal_nut", "cable"))]
    text = latex(results, table_rows(results, "exact"), {"command": "a_b"})
    assert r"metal\_nut" in text
    for what in ("table", "tabular"):
        assert text.count(rf"\begin{{{what}}}") == text.count(rf"\end{{{what}}}") == 2
    body = [line for line in text.splitlines() if line.endswith(r"\\") and "&" in line and "multicolumn" not in line]
    assert {line.count(" & ") for line in body} == {11}
    assert escape("50% & {x}_^~\\") == r"50\% \& \{x\}\_\textasciicircum{}\textasciitilde{}\textbackslash{}"


def test_latex_tables_are_no_wider_than_the_text(tmp_path):
    results = [result("mvtec", tmp_path, categories=("metal_nut", "cable"))]
    text = latex(results, table_rows(results, "exact"), {})
    assert text.startswith("% needs \\usepackage{booktabs,graphicx}\n")
    lines = text.splitlines()
    shrunk = [
        line for line in lines if line.startswith(r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{")
    ]
    assert len(shrunk) == text.count(r"\end{tabular}}") == 2
    row = next(number for number, line in enumerate(lines) if line.startswith("MVTec AD & headclip"))
    assert "[" not in lines[row]
    assert lines[row + 1].startswith(r" &  & {\tiny [85.0, 94.0]} & ")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_compiles_without_a_table_that_is_too_wide(tmp_path):
    results = [result("mvtec", tmp_path, categories=("metal_nut", "cable"), leakage="trained on it")]
    text = latex(results, table_rows(results, "ader"), {"command": "a_b"})
    whole = rf"\documentclass{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}{text}\end{{document}}"
    (tmp_path / "t.tex").write_text(whole)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if "not found" in done.stdout:
        pytest.skip("pdflatex lacks booktabs or graphicx")
    assert done.returncode == 0, done.stdout
    assert r"Overfull \hbox" not in done.stdout


def test_latex_names_break_neither_labels_nor_rows(tmp_path):
    results = [result("mvtec", tmp_path, categories=("[1] a", "50% #1 $x$"))]
    text = latex(results, table_rows(results, "exact"), {})
    assert r"{}[1] a & " in text
    labels = re.findall(r"\\label\{(.*)\}", text)
    assert labels
    assert all(re.fullmatch(r"tab:[\w.:-]+", label) for label in labels)
