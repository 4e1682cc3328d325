"""Two methods on the same images: by dataset, on average, and not at all where the images differ."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from evaluation.evaluate_files import FakeEvaluated, picture, write_set
from headclip.data.datasets import open_dataset
from headclip.evaluation.averages import averages
from headclip.evaluation.comparison import compare_results, comparison_csv, comparison_table
from headclip.evaluation.evaluate import Options, evaluate
from headclip.metrics import PIXEL_METRICS


class Worse(FakeEvaluated):
    """Loses sight of where the brightness was."""

    def _predict(self, image):
        return super()._predict(np.random.default_rng(int(image.sum())).permuted(image, axis=0))

    def describe(self):
        return super().describe() | {"method": "worse"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    roots = [write_set(folder / "mugs", ("cup",)), write_set(folder / "bolts", ("cup", "nut"), seed=7)]
    return [open_dataset("folder", root) for root in roots]  # both have a category of the same name


def results_of(sets, detector, out):
    options = Options(bootstrap=60, figures=False, worst=0)
    return evaluate(detector, sets, out, options).results


@pytest.fixture(scope="module")
def pairs(sets, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return results_of(sets, FakeEvaluated(), out / "one"), results_of(sets, Worse(), out / "two")


def test_averages_over_datasets_have_intervals(pairs):
    (average,) = averages(pairs[0], "exact")
    assert average.title == "average of 2 datasets"
    assert set(average.intervals) == set(average.figures)
    for name, interval in average.intervals.items():
        assert interval.value == average.figures[name]
        assert interval.low <= interval.value <= interval.high
        if not name.endswith("mad"):
            parts = [result.mean["exact"][name] for result in pairs[0]]
            assert interval.value == pytest.approx(np.mean(parts))
    alone = [replace(result, replicates=(), intervals={}) for result in pairs[0]]
    assert averages(alone, "exact")[0].intervals == {}
    assert averages([pairs[0][0], alone[1]], "exact")[0].intervals == {}  # half of it would mislead


def test_methods_are_compared_by_dataset_and_on_average(pairs):
    found = compare_results([*pairs[0], *pairs[1]], "exact")
    assert [entry.title for entry in found] == ["mugs", "bolts", "average of 2 datasets"]
    assert {(entry.first, entry.second) for entry in found} == {("fake", "worse")}
    for name in PIXEL_METRICS:
        single = [entry.metrics[name].difference for entry in found[:2]]
        assert found[2].metrics[name].difference == pytest.approx(np.mean(single))
    whole, parts = found[2].metrics["pixel_ap"], [entry.metrics["pixel_ap"] for entry in found[:2]]
    assert whole.low < whole.difference < whole.high < 0.0
    assert whole.high - whole.low < max(part.high - part.low for part in parts)
    text = comparison_table(found)
    assert "## average of 2 datasets: worse minus fake" in text
    rows = list(csv.DictReader(io.StringIO(comparison_csv(found))))
    assert len(rows) == 3 * 10
    row = next(row for row in rows if (row["dataset"], row["metric"]) == ("", "pixel_ap"))
    assert float(row["difference"]) == pytest.approx(100 * whole.difference, abs=1e-4)


def test_other_images_are_not_compared(tmp_path):
    root = write_set(tmp_path / "cups", ("cup",), normal=5)
    data = open_dataset("folder", root)
    whole = results_of([data], FakeEvaluated(), tmp_path / "one")
    (root / "cup/test/good/2.png").write_bytes(b"torn")
    torn = results_of([data], Worse(), tmp_path / "two")
    picture(root / "cup/test/good/2.png", 2)
    (root / "cup/test/good/3.png").write_bytes(b"torn")  # as many of each label, and yet not the same
    other = results_of([data], Worse(), tmp_path / "three")
    for pair in ([*whole, *torn], [*torn, *other]):
        (entry,) = compare_results(pair, "exact")
        assert entry.metrics == {}
        assert "has no result of 1 image(s), e.g. cup/test/good/" in entry.reason
        assert entry.reason in comparison_table([entry])
        assert entry.reason in comparison_csv([entry])
