"""The published figures agree with themselves, except where the data say that they do not."""

from __future__ import annotations

from collections import Counter
from statistics import mean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from headclip.data.datasets import datasets, find_dataset
from headclip.errors import InputError
from headclip.evaluation.published import (
    METRICS,
    ap_bound,
    impossible_ap,
    inconsistencies,
    iou_from_f1,
    published,
    sources,
)

TOLERANCE = 0.1 + 1e-9  # a mean of rounded values, rounded itself
METHODS = ("AnoVL", "AnomalyCLIP", "AdaCLIP", "HeadCLIP")
APPENDIX = [row for row in published(source="headclip", category=None) if row.category]
PIXEL = [row for row in APPENDIX if "pixel_iou" in row.values]
EXCEPTIONS = {(entry.table, entry.dataset, entry.method, entry.metric): entry.printed for entry in inconsistencies()}


def test_every_table_is_complete():
    rows = published(source="headclip", category=None)
    sizes = Counter(row.table for row in rows)
    main = {"1": 32, "2": 28, "3": 20, "4": 16, "5": 14, "6": 10, "7": 28, "8": 8, "9": 6}
    categories = (15, 12, 6, 3, 1, 10, 12, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    appendix = {str(10 + index): 4 * count for index, count in enumerate(categories)}
    assert sizes == main | appendix
    assert len(PIXEL) == 260
    assert len(APPENDIX) == 276
    assert len(published(source="anomalyclip")) == 23 * 6 - 4 + 8


def test_every_value_is_a_percentage_of_a_known_metric():
    for row in published(category=None, unverified=True):
        assert row.values
        assert set(row.values) <= set(METRICS)
        assert all(0 <= value <= 100 for value in row.values.values())
        assert row.source in sources()
        assert row.dataset == "average" or find_dataset(row.dataset).family == row.dataset


def test_the_appendix_has_the_categories_of_the_registry():
    for info in datasets():
        if info.paper:
            rows = published(info.name, "HeadCLIP", "headclip", category=None)
            names = {row.category.replace(" ", "_") for row in rows if row.category}
            assert names == {name.replace(" ", "_") for name in info.categories}


def test_levels_are_those_of_the_datasets():
    for info in datasets():
        if info.paper:
            found = {metric.split("_")[0] for row in published(info.name, source="headclip") for metric in row.values}
            assert found == {"both": {"image", "pixel"}, "pixel": {"pixel"}, "image": {"image"}}[info.level]


def test_iou_follows_from_f1_in_all_260_rows():
    for row in PIXEL:
        f1, iou = row.values["pixel_f1"], row.values["pixel_iou"]
        low, high = (100 * iou_from_f1((f1 + shift) / 100) for shift in (-0.05, 0.05))
        assert low - 0.05 <= iou + 1e-9, row
        assert iou - 1e-9 <= high + 0.05, row


def test_only_adaclip_has_an_ap_that_its_f1_does_not_allow():
    found = impossible_ap(PIXEL)
    assert {row.method for row in found} == {"AdaCLIP"}
    names: dict[str, str] = {}
    for row in found:
        names[row.dataset] = ", ".join(filter(None, [names.get(row.dataset, ""), row.category]))
    assert names == {
        "mvtec": "bottle, capsule, carpet, grid, leather, pill, tile, transistor, wood, zipper",
        "visa": "cashew, fryum",
        "mpdd": "metal plate",
        "btad": "01, 02",
        "sdd": "electrical commutators",
        "dagm": ", ".join(f"Class{number}" for number in range(1, 11)),
        "dtd-synthetic": "Mesh 114, Perforated 037, Stratified 154, Woven 104, Woven 125",
        "isic": "skin",
        "tn3k": "thyroid",
    }
    assert len(found) == 33
    assert len([row for row in PIXEL if row.method == "AdaCLIP"]) == 65


@given(st.integers(0, 10**6))
def test_no_ranking_exceeds_the_bound(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < rng.uniform(0.05, 0.9)
    truth[0] = True
    scores = truth * rng.uniform(0, 2) + rng.random(60)
    precision, recall, _ = precision_recall_curve(truth, scores)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    # step-wise AP lies under the curve that the bound integrates, up to one step of recall
    assert average_precision_score(truth, scores) <= ap_bound(best) + 1 / truth.sum()


def test_the_bound_is_the_area_under_its_curve():
    recall = np.linspace(1e-6, 1, 400_001)
    for f1 in (0.05, 0.267, 0.5, 0.9):
        with np.errstate(divide="ignore"):
            allowed = np.where(2 * recall > f1, f1 * recall / (2 * recall - f1), np.inf)
        assert ap_bound(f1) == pytest.approx(np.trapezoid(np.minimum(1, allowed), recall), abs=1e-4)


def contradictions() -> dict[tuple[str, str, str, str], float]:
    """Every value of Tables 1 to 3 that is not what the appendix or its own metrics give."""
    found = {}
    for table in ("1", "2", "3"):
        for row in published(source="headclip", table=table):
            categories = [entry for entry in APPENDIX if (entry.dataset, entry.method) == (row.dataset, row.method)]
            for metric, printed in row.values.items():
                if metric.endswith("_mad"):
                    parts = [row.values[name] for name in row.values if name[:5] == metric[:5] and name != metric]
                elif row.dataset == "average":
                    rows = published(method=row.method, source="headclip", table=table)
                    parts = [entry.values[metric] for entry in rows if entry.dataset != "average"]
                else:
                    parts = [entry.values[metric] for entry in categories]
                if abs(mean(parts) - printed) > TOLERANCE:
                    found[table, row.dataset, row.method, metric] = printed
    return found


def test_tables_are_the_means_of_the_appendix_except_where_listed():
    found = contradictions()
    listed = {
        key: printed
        for key, printed in EXCEPTIONS.items()
        if key != ("1", "dtd-synthetic", "HeadCLIP", "pixel_aupro")  # contradicted by Table 4, not the appendix
    }
    assert found == listed
    assert {key[2] for key in found if not key[3].endswith("mad")} == {"AnoVL"}


def test_the_two_misprints_of_adaclip():
    (row,) = published("sdd", "AdaCLIP", "headclip", table="1")
    values = [value for metric, value in row.values.items() if metric.startswith("pixel") and metric != "pixel_mad"]
    assert mean(values) == pytest.approx(22.4, abs=0.05)
    assert row.values["pixel_mad"] == EXCEPTIONS["1", "sdd", "AdaCLIP", "pixel_mad"] == 26.2
    rows = [row for row in published(method="AdaCLIP", source="headclip", table="1") if row.dataset != "average"]
    repaired = [22.4 if row.dataset == "sdd" else row.values["pixel_mad"] for row in rows]
    assert mean(repaired) == pytest.approx(43.7, abs=0.1)
    assert EXCEPTIONS["1", "average", "AdaCLIP", "pixel_mad"] == 44.3


def test_table_4_repeats_the_pixel_values_of_table_1():
    for row in published(method="HeadCLIP", source="headclip", table="1"):
        (again,) = [
            other
            for other in published(row.dataset, source="headclip", table="4")
            if other.variant.startswith("with LHW")
        ]
        for metric, value in row.values.items():
            if metric.startswith("pixel") and value != again.values[metric]:
                assert EXCEPTIONS["1", row.dataset, "HeadCLIP", metric] == value


def test_table_7_in_the_corrected_columns_continues_table_1_and_9():
    first = {row.domain: row for row in published(source="headclip", table="7")[:2]}
    (baseline,) = published("average", "AnomalyCLIP", "headclip", table="1")
    assert first["industrial"].values == {metric: baseline.values[metric] for metric in ("image_mad", "pixel_mad")}
    medical = {table: published("average", "AnomalyCLIP", "headclip", table=table)[0] for table in ("2", "3")}
    assert first["medical"].values["pixel_mad"] == medical["2"].values["pixel_mad"]
    assert first["medical"].values["image_mad"] == medical["3"].values["image_mad"]


def test_reading():
    (row,) = published("MVTec AD", "headclip", "headclip", table="1")
    assert row.values["image_auroc"] == 93.2
    (metal,) = published("mvtec", "HeadCLIP", category="metal_nut")
    assert metal.values["pixel_aupro"] == 75.9
    assert published("sdd-anomalyclip", "AnomalyCLIP", "anomalyclip")[0].values["image_auroc"] == 84.7
    assert not any(not row.verified for row in published(category=None))
    assert {row.method for row in published(unverified=True) if not row.verified} == {"AnoVL", "AdaCLIP", "VCP-CLIP"}
    with pytest.raises(InputError, match="unknown source"):
        published(source="nobody")
    with pytest.raises(InputError, match="unknown dataset"):
        published("nothing")
    with pytest.raises(TypeError):
        row.values["image_auroc"] = 100.0  # type: ignore[index]


def test_sources_say_what_is_wrong_with_them():
    assert any("Table 7" in text for text in sources()["headclip"].misprints)
    for source in sources().values():
        assert source.title
        assert source.where
        assert source.protocol
        assert published(source=source.name, category=None, unverified=True)
