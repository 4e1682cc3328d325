"""Means, spreads, averages, differences and layouts, on figures made up here."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from headclip.ablation import plots
from headclip.ablation.cells import MEAN_OF, Cell, averages, differences, make_cells
from headclip.ablation.definitions import find_ablation
from headclip.ablation.plan import Settings, make_plan
from headclip.ablation.plots import draw, panels
from headclip.ablation.tables import Report, csv_table, markdown, show
from headclip.clip.config import ClipConfig, TextConfig, VisionConfig

CONFIG = ClipConfig("paper", 768, VisionConfig(1024, 24, 16, 14, 336), TextConfig(768, 12, 12))
SETS = {"sdd": "industrial", "mvtec": "industrial", "kvasir": "medical", "brainmri": "medical"}
LEVEL = {"sdd": "both", "mvtec": "both", "kvasir": "pixel", "brainmri": "image"}


def record(row, seed, key):
    """Figures that tell row, seed and dataset apart."""
    number = len(row.variant.label) + 3 * seed + len(key)
    image = dict.fromkeys(("image_auroc", "image_ap", "image_f1"), (50 + number) / 100)
    pixel = {f"pixel_{name}": (30 + number) / 100 for name in ("auroc", "aupro", "ap", "f1", "iou")}
    values = {**(image if LEVEL[key] != "pixel" else {}), **(pixel if LEVEL[key] != "image" else {})}
    return {
        "title": key.upper(),
        "domain": SETS[key],
        "level": LEVEL[key],
        "alpha": row.alpha,
        "figures": {"all": {"ader": values, "exact": values}},
        "images": [],
    }


def report(name, keys=tuple(SETS), seeds=(1, 2, 3), notes=()):
    plan = make_plan(find_ablation(name), CONFIG, Settings(), Settings())
    cells = make_cells(plan, seeds, list(keys), record, "ader")
    return Report(plan, cells, {key: key for key in keys}, {"tested on": "figures made up"}, notes)


def test_mean_and_spread_over_seeds():
    found = report("lhw").cells[0]
    assert found.values("image_ap") == pytest.approx([50 + 11 + 3 * seed + 3 for seed in (1, 2, 3)])
    assert (found.mean("image_ap"), found.spread("image_ap")) == pytest.approx((70.0, 3.0))
    assert show(found, "image_ap") == "70.0 ± 3.0"
    one = report("lhw", seeds=(2,)).cells[0]
    assert show(one, "image_ap") == "70.0"
    assert one.spread("image_ap") is None
    assert show(report("lhw", ["kvasir"]).cells[0], "image_ap") == "-"


def test_averages_are_by_domain_and_leave_out_what_is_not_defined():
    cells = [c for c in report("lhw").cells if c.variant.label == "with LHW"]
    by_domain = {c.domain: c for c in cells if c.dataset == MEAN_OF}
    assert list(by_domain) == ["industrial", "medical", "all"]
    assert by_domain["medical"].mean("image_ap") == cells[3].mean("image_ap")  # of brainmri alone
    assert by_domain["industrial"].mean("image_ap") == pytest.approx(
        (cells[0].mean("image_ap") + cells[1].mean("image_ap")) / 2
    )


def test_averages_say_how_many_datasets_they_rest_on():
    titles = {c.domain: c.title for c in report("lhw").cells if c.dataset == MEAN_OF}
    assert titles == {
        "industrial": "average of 2 industrial datasets",
        "medical": "average of 2 medical datasets (image 1, pixel 1)",
        "all": "average of 4 datasets (image 3, pixel 3)",
    }
    text = markdown(report("modules", ["sdd", "kvasir", "brainmri"]))
    words = "average of 1 industrial dataset; or an average of 2 medical datasets (image 1, pixel 1)."
    assert f"Each figure of ours is an {words}" in text
    assert "Each figure of ours is an average of 3 datasets (image 2, pixel 2)." in markdown(
        report("jas", ["sdd", "kvasir", "brainmri"])
    )
    assert "Each figure of ours" not in markdown(report("jas", ["sdd"]))


def test_a_seed_that_was_not_everywhere_is_in_no_average():
    variant = find_ablation("lhw").variants[0]
    first = Cell(variant, "a", "A", "any", {1: {"image_ap": 50.0}, 2: {"image_ap": 60.0}})
    other = Cell(variant, "b", "B", "any", {1: {"image_ap": 70.0}})
    (average,) = averages([first, other])
    assert average.values("image_ap") == [60.0]


def test_differences_are_taken_seed_by_seed():
    layers = [c for c in report("layers").cells if c.dataset == MEAN_OF and c.domain == "industrial"]
    found = differences(layers, "pixel_mad")
    assert len(found) == 8  # with against without head weights, for each choice of layers
    assert all(d.reference.variant.at == d.cell.variant.at for d in found)
    assert all(d.reference.variant.series == "without LHW" for d in found)
    assert all(d.mean == pytest.approx(-3.0) and d.spread == pytest.approx(0.0) for d in found)  # "out" is 3 letters
    init = [c for c in report("init").cells if c.dataset == MEAN_OF and c.domain == "industrial"]
    assert {d.reference.variant.label for d in differences(init, "pixel_mad")} == {"Gaussian"}


def test_a_method_without_training_is_the_same_for_every_seed():
    cells = [c for c in report("prompts").cells if c.dataset == MEAN_OF and c.domain == "industrial"]
    found = {d.cell.variant.label: d for d in differences(cells, "pixel_mad")}
    base = next(c for c in cells if c.variant.label == "base: CLIP")
    assert len(base.by_seed) == 1
    assert [len(found[name].by_seed) for name in ("T1: v-v attention", "T3: deep tokens")] == [1, 3]
    assert found["T3: deep tokens"].spread == pytest.approx(3.0)


def test_layout_of_tables_4_to_6():
    text = markdown(report("lhw", notes=["something odd"]))
    head = next(line for line in text.splitlines() if line.startswith("| dataset"))
    assert head.count("image ") == 4
    assert head.count("pixel ") == 6
    assert "*with LHW: HeadCLIP (Jeong et al.), Table 4* | *87.0* | *84.8* | *80.3* | *84.1* | *91.3*" in text
    assert "*without LHW: HeadCLIP (Jeong et al.), Table 6* | *93.0* | *94.3* | *90.7* | *92.7* | - |" in text
    assert "average of 2 industrial datasets" in text
    assert text.rstrip().endswith("- something odd")


def test_layout_of_table_7_has_the_columns_in_their_true_order():
    text = markdown(report("layers"))
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("|  | image mAD"))
    assert [cell.strip() for cell in head.strip("|").split("|")][1:] == [
        "image mAD, industrial", "image mAD, medical", "pixel mAD, industrial", "pixel mAD, medical",
        "*ind. image, paper*", "*med. image, paper*", "*ind. pixel, paper*", "*med. pixel, paper*",
    ]  # fmt: skip
    row = next(line for line in lines if line.startswith("| 24, with LHW"))
    assert row.endswith("| *88.1* | *86.2* | *60.3* | *57.4* |")
    row = next(line for line in lines if line.startswith("| 5-19 (default), without LHW"))
    assert row.endswith("| *88.1* | *85.4* | *58.3* | *55.5* |")


def test_init_shows_pixels_only():
    text = markdown(report("init"))
    assert "image mAD" not in text
    assert "| Gaussian | " in text
    assert "*59.6*" in text


@pytest.mark.parametrize(
    ("domains", "heads"),
    [
        (["any"], ["method"]),
        (["industrial"], ["method, industrial"]),
        (["any", "industrial"], ["method, own data", "method, industrial", "method, all datasets"]),
    ],
)
def test_tables_over_the_ratio_say_which_datasets_they_are_of(domains, heads):
    plan = report("methods").plan
    variants = [replace(plan.ablation.variants[0], series="HeadCLIP", value=ratio) for ratio in (0.0, 0.5)]
    found = []
    for variant in variants:
        cells = [Cell(variant, domain, domain, domain, {1: {"image_mad": 50.0}}) for domain in domains]
        found += cells + averages(cells)
    text = markdown(Report(plan, [], {}, {}, (), found))
    assert [line.split(" | ")[0] for line in text.splitlines() if line.endswith("| 0 | 0.5 |")] == [
        f"| {head}" for head in heads
    ]


def test_csv_has_every_figure_and_its_source():
    lines = csv_table(report("lhw")).splitlines()
    kinds = [line.split(",")[0] for line in lines[1:]]
    assert kinds.count("dataset") == 8
    assert kinds.count("average") == 6
    assert kinds.count("published") == 2 * (4 + 2)  # each dataset, and the averages of two domains
    assert all(line.count('"HeadCLIP (Jeong et al.), Table') == 1 for line in lines if line.startswith("published"))


def test_published_averages_are_called_those_of_the_papers_datasets():
    found = report("lhw", ["sdd", "kvasir"])
    text = markdown(found)
    assert "| average of 1 industrial dataset | with LHW | " in text
    assert "| average of the paper's 7 industrial datasets | *with LHW: HeadCLIP (Jeong et al.), Table 4* | " in text
    title = "average of the paper's 10 medical datasets (image 4, pixel 6)"
    assert f"| {title} | *with LHW: HeadCLIP (Jeong et al.), Table 5, 6* | " in text
    lines = list(csv.DictReader(csv_table(found).splitlines()))
    printed = {line["title"] for line in lines if (line["kind"], line["dataset"]) == ("published", MEAN_OF)}
    assert printed == {"average of the paper's 7 industrial datasets", title}


def test_panels_of_the_figure():
    rows = panels(report("jas").cells, ("image",))
    assert [row[0].axis for row in rows] == ["joint score ratio", "top-k share, in percent"]
    assert [panel.domain for panel in rows[0]] == ["industrial", "medical"]
    assert all(panel.numeric for row in rows for panel in row)
    layers = panels(report("layers").cells, ("image", "pixel"))
    assert [panel.title for panel in layers[0]] == [
        "image mAD, industrial", "image mAD, medical", "pixel mAD, industrial", "pixel mAD, medical",
    ]  # fmt: skip
    assert not layers[0][0].numeric
    assert layers[0][0].series == ["without LHW", "with LHW"]


def test_the_figure_names_every_series_also_one_whose_first_row_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    found = report("layers", ["sdd"])
    first = found.plan.ablation.variants[0]
    figures = []
    monkeypatch.setattr(plots, "write_plot", lambda figure, path: figures.append(figure))
    draw(replace(found, cells=[c for c in found.cells if c.variant is not first]), tmp_path)
    texts = figures[0].axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts] == ["with LHW", "without LHW"]
