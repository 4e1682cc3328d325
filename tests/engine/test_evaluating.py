"""`headclip evaluate --engine ray` and the options of the engine, by a crew that works in this process."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engine.engine_files import load_tiny_labelled, load_two, write_dataset
from headclip.cli.app import main
from headclip.clip.weights import save_backbone
from headclip.data.datasets import open_spec
from headclip.engine.crew import LOST, Crew
from headclip.engine.evaluating import evaluate_on_ray
from headclip.engine.predicting import Model
from headclip.evaluation.evaluate import Options, evaluate, evaluate_together
from headclip.runs.run import Run
from tiny_clip import make_backbone, make_config

OPTIONS = Options(bootstrap=20, figures=False)
ONE = Crew(1, 1)
pytestmark = pytest.mark.filterwarnings("ignore:no checkpoint")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    save_backbone(make_backbone(replace(make_config(), default_image_size=42)), folder)
    return str(folder)


@pytest.fixture
def data(tmp_path):
    return [open_spec(f"folder={write_dataset(tmp_path / 'data')}")]


def same_figures(one, many):
    """All alike, figures but for how a processor rounds: its kernels may depend on where in memory an image lies."""
    assert len(one.rows) == len(many.rows)
    for ours, theirs in zip(one.rows, many.rows, strict=True):
        assert replace(ours, values={}, intervals={}) == replace(theirs, values={}, intervals={})
        assert theirs.values == pytest.approx(ours.values, abs=0.01)
        assert theirs.intervals.keys() == ours.intervals.keys()
        for figure, ends in ours.intervals.items():
            assert theirs.intervals[figure] == pytest.approx(ends, abs=0.01), figure


def same_tables(one, many):
    """The same words and, to the digits that are promised, the same numbers."""
    for name in ("tables.csv", "scores.csv", "tables.tex"):
        ours, theirs = (re.split(r"(\d+\.\d+)", (out / name).read_text()) for out in (one, many))
        assert theirs[::2] == ours[::2], name
        close = 0.11 if name.endswith(".tex") else 1.1e-4  # the last of one digit after the point, and of four or more
        assert [float(number) for number in theirs[1::2]] == pytest.approx(
            [float(number) for number in ours[1::2]], abs=close
        ), name


def test_figures_are_those_of_one_machine(inline, tiny, data, tmp_path):
    arguments = {"backbone": tiny, "batch_size": 3, "precision": "fp32"}
    one = evaluate(load_tiny_labelled(arguments)[""], data, tmp_path / "one", OPTIONS)
    many = evaluate_on_ray(Model(load_tiny_labelled, arguments), data, tmp_path / "many", OPTIONS, ONE)
    same_figures(one, many)
    same_tables(tmp_path / "one", tmp_path / "many")
    assert (tmp_path / "many" / "worst.html").is_file()
    assert any(image.reason for image in many.results[0].not_scored())


def test_several_methods_share_the_work(inline, tiny, data, tmp_path):
    arguments = {"backbone": tiny, "batch_size": 3, "precision": "fp32"}
    options = replace(OPTIONS, keep_maps=True)
    one = evaluate_together(load_two(arguments), data, tmp_path / "one", options)
    many = evaluate_on_ray(Model(load_two, arguments), data, tmp_path / "many", options, ONE, together=True)
    same_figures(one, many)
    same_tables(tmp_path / "one", tmp_path / "many")
    for folder in (tmp_path / "one" / "runs").glob("*/*"):
        first, second = Run.open(folder), Run.open(tmp_path / "many" / folder.relative_to(tmp_path / "one"))
        assert first.ok
        for row in first.ok:
            assert np.abs(first.load_map(row) - second.load_map(row)).max() < 2.5 / 65535


def test_what_is_judged_is_not_judged_again(inline, tiny, data, tmp_path):
    arguments = {"backbone": tiny, "batch_size": 1, "precision": "fp32"}
    model = Model(load_tiny_labelled, arguments)

    def stop(result):
        if len(inline.chunks) == 4:
            raise KeyboardInterrupt
        return [result]

    inline.mishap = stop
    with pytest.raises(KeyboardInterrupt):
        evaluate_on_ray(model, data, tmp_path / "many", OPTIONS, ONE)
    first = {ref.name for chunk in inline.chunks[:3] for ref in chunk.files}
    inline.mishap = lambda result: [result]
    inline.chunks.clear()
    many = evaluate_on_ray(model, data, tmp_path / "many", replace(OPTIONS, resume=True), ONE)
    again = {ref.name for chunk in inline.chunks for ref in chunk.files}
    assert first.isdisjoint(again - {"test/good/broken.png"})
    one = evaluate(load_tiny_labelled(arguments)[""], data, tmp_path / "one", OPTIONS)
    same_figures(one, many)


def test_lost_images_are_rows(inline, tiny, data, tmp_path):
    inline.mishap = lambda result: [] if any("0.png" in entry.row.path for entry in result.entries) else [result]
    model = Model(load_tiny_labelled, {"backbone": tiny, "batch_size": 3, "precision": "fp32"})
    many = evaluate_on_ray(model, data, tmp_path / "many", OPTIONS, ONE)
    lost = {image.name: image.reason for image in many.results[0].not_scored()}
    assert lost["test/good/0.png"] == LOST
    assert len(lost) == 2  # and the broken file


def command(*words, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code, capsys.readouterr()


def test_predict_from_the_command_line(inline, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headclip.engine.crew.require_ray", lambda: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "bolt").mkdir(parents=True)
    for number in range(5):
        Image.effect_noise((40, 32), 20 * number).save(tmp_path / "in" / "bolt" / f"{number}.png")
    code, _ = command("predict", "in", "-o", "one", "--backbone", tiny, capsys=capsys)
    assert code == 0
    words = ["--backbone", tiny, "--engine", "ray", "--actors", "1:2"]
    code, said = command("predict", "in", "-o", "many", *words, capsys=capsys)
    assert (code, "5 images judged" in said.out) == (0, True)
    one, many = Run.open("one"), Run.open("many")
    assert [row.score for row in one.rows] == [row.score for row in many.rows]
    assert many.facts["arguments"]["engine"] == "ray"
    code, said = command("predict", "in", "-o", "memory://shelf/run", *words, capsys=capsys)
    assert (code, "Results: memory://shelf/run" in said.out) == (0, True)
    code, said = command("predict", "file://" + str(tmp_path / "in"), "-o", "file", *words, capsys=capsys)
    assert code == 0
    categories = ["--method", "clip", "--category", "from-folder"]
    code, said = command("predict", "in", "-o", "named", *words, *categories, capsys=capsys)
    assert code == 0
    assert Run.open("named").settings["category"] == "each image's own"


def test_evaluate_from_the_command_line(inline, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headclip.engine.crew.require_ray", lambda: None)
    write_dataset(tmp_path / "data")
    words = ["evaluate", "-d", f"folder={tmp_path / 'data'}", "--backbone", tiny, "--bootstrap", "0", "--no-figures"]
    words += ["--method", "clip,headclip", "--precision", "fp32", "--worst", "1"]
    assert command(*words, "-o", tmp_path / "one", capsys=capsys)[0] == 0
    code, _ = command(*words, "-o", tmp_path / "many", "--engine", "ray", "--actors", "2", capsys=capsys)
    assert code == 0
    same_tables(tmp_path / "one", tmp_path / "many")
    code, said = command(*words[:3], "-o", tmp_path / "x", tmp_path, "--engine", "ray", capsys=capsys)
    assert (code, "finished runs are scored here" in said.err) == (2, True)


def test_keys_in_an_address_stay_out_of_the_results(inline, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("headclip.engine.crew.require_ray", lambda: None)
    Image.effect_noise((40, 32), 40).save(tmp_path / "a.png")
    from headclip.engine.storage import Place

    Place("memory://secret-shelf").write("a.png", (tmp_path / "a.png").read_bytes())
    url = "memory://secret-shelf?key=hunter2"
    monkeypatch.setattr("headclip.engine.storage._open", _without_query)
    words = ["predict", url, "-o", tmp_path / "run", "--backbone", tiny, "--engine", "ray"]
    code, said = command(*words, capsys=capsys)
    assert code == 0
    assert "hunter2" not in (tmp_path / "run" / "run.json").read_text() + said.out


def _without_query(url):
    import fsspec
    from pyarrow import fs

    system, path = fsspec.core.url_to_fs(url.partition("?")[0])
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--actors", "2"], "--actors belong to --engine ray"),
        (["--engine", "ray", "--actors", "two"], "--actors two"),
        (["--engine", "ray", "--cpus-per-actor", "0"], "more than 0 processors"),
        (["-o", "s3://bucket/run"], "s3://bucket/run: object storage needs --engine ray"),
    ],
)
def test_wrong_options_are_answered(tmp_path, capsys, words, message):
    code, said = command("predict", tmp_path, "-o", tmp_path / "run", *words, capsys=capsys)
    assert code == 2
    assert message in said.err


def test_without_ray(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    code, said = command("predict", tmp_path, "-o", tmp_path / "run", "--engine", "ray", capsys=capsys)
    assert code == 2
    assert "pip install 'headclip[ray]'" in said.err
