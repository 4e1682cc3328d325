"""Curves: their areas are the metrics; figures where matplotlib is installed, a hint where not."""

from __future__ import annotations

import builtins
import shutil

import numpy as np
import pytest

from evaluation.evaluate_files import FakeEvaluated, write_set
from headclip.data.datasets import open_dataset
from headclip.evaluation.curves import NEEDS_MATPLOTLIB, draw_figures, image_curves, pixel_curves
from headclip.evaluation.evaluate import Options, evaluate


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = write_set(tmp_path_factory.mktemp("set") / "mugs")
    out = tmp_path_factory.mktemp("out") / "e"
    options = Options(bootstrap=0, figures=False, worst=0)
    return evaluate(FakeEvaluated(), [open_dataset("folder", root)], out, options).results


def test_areas_under_the_curves_are_the_metrics(results):
    for category in results[0].categories:
        figures = category.figures["exact"]
        for level, curves in (("image", image_curves(category)), ("pixel", pixel_curves(category))):
            x, y = curves.roc
            assert np.trapezoid(y, x) == pytest.approx(figures[f"{level}_auroc"], abs=2e-3)
            recall, precision = curves.pr
            assert (recall[0], recall[-1]) == (0.0, 1.0)
            assert np.sum(np.diff(recall, prepend=0.0) * precision) == pytest.approx(figures[f"{level}_ap"], abs=1e-2)
        x, y = pixel_curves(category).pro
        grid = np.linspace(0, 0.3, 2000)
        assert np.trapezoid(np.interp(grid, x, y), grid) / 0.3 == pytest.approx(figures["pixel_aupro"], abs=2e-3)
        assert len(x) < 900
        assert (x[-1], y[-1]) == (1.0, 1.0)


def test_figures_are_written(results, tmp_path):
    pytest.importorskip("matplotlib")
    assert draw_figures(results, tmp_path / "f") == []
    names = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert names == ["mugs-image.png", "mugs-image.svg", "mugs-pixel.png", "mugs-pixel.svg"]
    text = (tmp_path / "f/mugs-pixel.svg").read_text()
    draw_figures(results, tmp_path / "g")
    assert (tmp_path / "g/mugs-pixel.svg").read_text() == text


def test_names_that_mean_something_to_matplotlib_are_shown_as_they_are(tmp_path):
    pytest.importorskip("matplotlib")
    names = ("a$^$b", "_c1", "only normal")
    root = write_set(tmp_path / "price $5 $^$", names)
    shutil.rmtree(root / "only normal/test/good")  # all are anomalous: no image figure is defined
    options = Options(bootstrap=0, figures=False, worst=0)
    results = evaluate(FakeEvaluated(), [open_dataset("folder", root, lenient=True)], tmp_path / "e", options).results
    draw_figures(results, tmp_path / "f")
    image, pixel = ((tmp_path / "f" / f"price__5____-{level}.svg").read_text() for level in ("image", "pixel"))
    for name in ("price $5 $^$", *names[:2]):
        assert name in image
    assert "only normal" not in image
    assert "only normal" in pixel


def test_without_matplotlib_there_is_a_hint(results, tmp_path, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest, **more):
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert draw_figures(results, tmp_path / "f") == [NEEDS_MATPLOTLIB]
    assert not (tmp_path / "f").exists()
