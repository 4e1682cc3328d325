"""`headclip evaluate` as a user runs it, on tiny sets with a tiny random model."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from evaluation.evaluate_files import mask, write_set
from headclip.cli.app import main
from headclip.clip.weights import load_backbone
from headclip.data.datasets import open_dataset
from headclip.methods import create_method
from headclip.methods.checkpoint import save_checkpoint
from headclip.metrics import image_metrics, pixel_metrics
from headclip.runs.run import Run


@pytest.fixture(scope="module")
def cups(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "cups")


@pytest.fixture(scope="module")
def checkpoints(backbone, tmp_path_factory):
    """Untrained, but files: what matters is what they say of themselves."""
    folder, loaded = tmp_path_factory.mktemp("checkpoints"), load_backbone(str(backbone))
    found = {}
    for name, method, settings in (
        ("headclip", "headclip", {}),
        ("headclip2", "headclip", {"head_init": 0.5}),
        ("coop", "coop", {}),
    ):
        found[name] = folder / f"{name}.safetensors"
        save_checkpoint(found[name], create_method(method, loaded, settings))
    return found


def call(capsys, *arguments):
    """Exit status, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    code = ended.value.code
    return (0 if code is None else code), captured.out, captured.err


def quick(backbone, out, *more):
    model = ["--backbone", backbone, "--device", "cpu", "--precision", "fp32", "--image-size", "42"]
    return [*model, "--out", out, "--bootstrap", "20", "--no-figures", "--worst", "1", *more]


def test_evaluate_writes_tables_that_the_maps_confirm(capsys, backbone, cups, tmp_path):
    status, out, err = call(capsys, "evaluate", "--data", cups, *quick(backbone, tmp_path / "e", "--keep-maps"))
    assert status == 0, err
    assert "cups: 8 normal, 10 anomalous" in out
    assert "95 % low" in out
    names = ("tables.md", "tables.csv", "tables.parquet", "tables.tex", "scores.csv", "results.json", "worst.html")
    assert all((tmp_path / "e" / name).is_file() for name in names)
    found = json.loads((tmp_path / "e/results.json").read_text())
    dataset, run = open_dataset("folder", cups), Run.open(tmp_path / "e/runs/cups")
    rows = {row.path: row for row in run.rows}
    for category in found["results"][0]["categories"]:
        records = dataset.of(category["name"])
        own = [rows[dataset.relative(record.path)] for record in records]
        masks = [None if r.label == 0 else dataset.mask(r, (32, 40)) for r in records]
        direct = pixel_metrics([run.load_map(row) for row in own], masks)
        direct |= image_metrics([row.score for row in own], [record.label for record in records])
        for name, value in category["figures"]["exact"].items():
            assert value == pytest.approx(direct[name], abs=5e-3), name  # maps were rounded to 16 bit

    status, out, err = call(
        capsys, "evaluate", tmp_path / "e/runs/cups", "--data", cups, "--out", tmp_path / "again", "--json",
        "--bootstrap", "0",
    )  # fmt: skip
    assert status == 0, err
    again = json.loads(out)
    for name, value in again["results"][0]["mean"]["exact"].items():
        assert value == pytest.approx(found["results"][0]["mean"]["exact"][name], abs=5e-3), name
    assert again["results"][0]["detector"]["backbone_hash"] == found["results"][0]["detector"]["backbone_hash"]


def test_resume_after_a_whole_evaluation_gives_the_same_tables(capsys, backbone, cups, tmp_path):
    arguments = ["evaluate", "--data", cups, *quick(backbone, tmp_path / "e", "--limit", "4")]
    assert call(capsys, *arguments)[0] == 0
    before = (tmp_path / "e/tables.csv").read_text()
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "--resume" in err
    assert call(capsys, *arguments, "--resume")[0] == 0
    assert (tmp_path / "e/tables.csv").read_text() == before


def test_a_checkpoint_is_not_tested_on_what_it_was_trained_on(capsys, backbone, cups, tmp_path):
    checkpoint = tmp_path / "a.safetensors"
    train = ["train", "--data", cups, "--backbone", backbone, "--out", checkpoint, "--epochs", "1"]
    status, _, err = call(capsys, *train, "--image-size", "42", "--workers", "0", "--device", "cpu", "--quiet")
    assert status == 0, err
    arguments = ["evaluate", "--data", cups, *quick(backbone, tmp_path / "e", "--checkpoint", checkpoint)]
    status, _, err = call(capsys, *arguments)
    assert status == 2
    assert "identical image" in err
    assert "--allow-leakage" in err
    assert not (tmp_path / "e").exists()
    status, out, err = call(capsys, *arguments, "--allow-leakage")
    assert status == 0, err
    assert "WARNING" in out
    assert "†" in (tmp_path / "e/tables.md").read_text()
    other = write_set(tmp_path / "plates", seed=1000)
    status, out, err = call(
        capsys, "evaluate", "--data", other, *quick(backbone, tmp_path / "f", "--checkpoint", checkpoint)
    )
    assert status == 0, err
    assert "WARNING" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nothing/here"], "neither NAME=PATH nor an existing path"),
        (["--data", "mvtec=nothing/here"], "does not exist"),
        (["--data", "mvtek=."], "did you mean mvtec"),
        (["--data", "CUPS", "--data", "CUPS"], "given twice"),
        (["--data", "CUPS", "--limit", "1"], "limit"),
        (["--data", "CUPS", "--backbone", "no-such-model"], "no-such-model"),
        (["no-run", "--data", "CUPS"], "holds no run"),
    ],
)
def test_wrong_use_says_what_is_right(capsys, backbone, cups, tmp_path, arguments, words):
    given = [str(cups) if part == "CUPS" else part for part in arguments]
    model = [] if "--backbone" in given else ["--backbone", str(backbone)]
    status, _, err = call(capsys, "evaluate", *given, *model, "--out", tmp_path / "e")
    assert status == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err


def test_nothing_to_score_is_status_1(capsys, backbone, tmp_path):
    for kind in ("good", "bad"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        (tmp_path / "set" / kind / "a.png").write_bytes(b"no image")
    status, _, err = call(capsys, "evaluate", "--data", tmp_path / "set", *quick(backbone, tmp_path / "e"))
    assert status == 1
    assert "none of the 2 images" in err
    with (tmp_path / "e/scores.csv").open() as handle:
        assert {row["status"] for row in csv.DictReader(handle)} == {"failed"}


def test_several_methods_share_one_evaluation(capsys, backbone, cups, tmp_path):
    arguments = ["evaluate", "--data", cups, "--method", "headclip, clip,winclip", "--limit", "4"]
    arguments += [*quick(backbone, tmp_path / "e"), "--set", "alpha=0.5", "--set", "clip.sigma=1"]
    status, out, err = call(capsys, *arguments)
    assert status == 0, err
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[3:12:3]] == ["headclip", "clip", "winclip"]
    assert any(line.startswith("winclip - headclip") for line in lines)
    found = json.loads((tmp_path / "e/results.json").read_text())
    assert [result["method"] for result in found["results"]] == ["headclip", "clip", "winclip"]
    configs = {result["method"]: result["detector"]["config"] for result in found["results"]}
    assert {config["alpha"] for config in configs.values()} == {0.5}
    assert (configs["clip"]["sigma"], configs["headclip"]["sigma"]) == (1, 4.0)
    assert [entry["second"] for entry in found["comparisons"]] == ["clip", "winclip"]
    assert all((tmp_path / "e/runs/cups" / name / "run.json").is_file() for name in configs)
    before = (tmp_path / "e/tables.csv").read_text()
    assert call(capsys, *arguments, "--resume")[0] == 0
    assert (tmp_path / "e/tables.csv").read_text() == before

    runs = [tmp_path / "e/runs/cups" / name for name in ("clip", "headclip")]
    status, _, err = call(capsys, "evaluate", *runs, "--data", cups, "--limit", "4", "--out", tmp_path / "again")
    assert status == 0, err
    again = json.loads((tmp_path / "again/results.json").read_text())
    assert [result["method"] for result in again["results"]] == ["clip", "headclip"]
    one, other = (
        {result["method"]: result["mean"]["exact"]["image_auroc"] for result in part["results"]}
        for part in (found, again)
    )
    assert other == {name: one[name] for name in other}
    assert again["comparisons"][0]["first"] == "clip"


def test_checkpoints_bring_their_methods_and_names(capsys, backbone, cups, checkpoints, tmp_path):
    arguments = ["evaluate", "--data", cups, "--limit", "4", *quick(backbone, tmp_path / "e")]
    given = [f"first={checkpoints['headclip']}", f"second={checkpoints['headclip2']}", checkpoints["coop"]]
    for spec in given:
        arguments += ["--checkpoint", spec]
    status, _, err = call(capsys, *arguments, "--method", "coop,headclip,clip")
    assert status == 0, err
    found = json.loads((tmp_path / "e/results.json").read_text())["results"]
    assert [result["method"] for result in found] == ["coop", "first", "second", "clip"]
    assert [result["detector"]["checkpoint"] for result in found] == [
        "coop.safetensors", "headclip.safetensors", "headclip2.safetensors", None
    ]  # fmt: skip
    assert "first: headclip.safetensors" in (tmp_path / "e/tables.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "headclip,winclop"], "unknown method 'winclop' (did you mean winclip?); known: adaclip"),
        (["--method", "clip,clip"], "names clip twice"),
        (["--method", ","], "headclip methods lists"),
        (["--method", "clip,winclip", "--set", "taps=[1]"], "clip has no such setting; no method here has it"),
        (["--method", "clip,anomalyclip", "--set", "taps=[1]"], "write --set anomalyclip.taps=..."),
        (["--method", "clip,winclip", "--set", "coop.alpha=1"], "there is no coop here; before the dot stands one of"),
        (["--method", "clip", "--set", "sigmq=1"], "unknown setting sigmq (did you mean sigma?)"),
        (["--method", "anomalyclip", "--set", "taps=[1,9]"], "give different layers from 1 to 3, the depth"),
        (["--method", "anomalyclip", "--set", "taps=last"], "takes a list of whole numbers such as [6, 12]"),
        (["--method", "headclip", "--set", 'words=["bad."]'], "words of HeadClipConfig takes a list of 2 texts"),
        (["--method", "adaclip,anovl", "--reference", "DATA"], "none of adaclip, anovl has a few-shot variant"),
        (["--method", "clip,winclip", "--reference", "no/such"], "give a folder with images of normal parts"),
        (["--method", "anovl", "--shots", "4"], "anovl cannot use normal images"),
        (["--method", "anovl,headclip", "--shots", "1"], "--shots 1: headclip needs at least 2"),
        (["--method", "clip", "--shots", "4", "--peers", "4"], "leave one of them out"),
        (["--method", "clip", "--shots", "4", "--reference", "DATA"], "leave one of them out"),
        (["--method", "clip", "--shots", "4", "--shard", "1/2"], "do not go together"),
        (["--method", "clip", "--peers", "4", "--reference", "DATA"], "leave one of them out"),
        (["--method", "clip", "--shots", "40"], "too few to take 40 as shots"),
        (["--method", "winclip", "--reference", "no/such"], "give a folder with images of normal parts"),
        (["--checkpoint", "no.safetensors"], "no checkpoint at no.safetensors; give FILE, or NAME=FILE"),
        (["--checkpoint", "a=no.safetensors"], "no checkpoint at no.safetensors; give FILE, or NAME=FILE"),
        (["--checkpoint", "COOP", "--method", "clip,headclip"], "add coop to --method, or leave --method out"),
        (["--checkpoint", "headclip=COOP"], "is a checkpoint of coop, not of headclip"),
        (["--checkpoint", "COOP", "--checkpoint", "COOP"], "name them: --checkpoint A=FILE"),
        (["--checkpoint", "a/b=COOP", "--checkpoint", "a b=COOP"], "would share a folder"),
        (["--checkpoint", "PTH", "--method", "clip,anomalyclip"], "write --checkpoint METHOD="),
    ],
)
def test_wrong_models_say_what_is_right(capsys, backbone, cups, checkpoints, tmp_path, arguments, words):
    (tmp_path / "a.pth").write_bytes(b"")
    places = {"DATA": cups, "COOP": checkpoints["coop"], "PTH": tmp_path / "a.pth"}
    given = arguments
    for name, place in places.items():
        given = [part.replace(name, str(place)) for part in given]
    status, _, err = call(capsys, "evaluate", "--data", cups, *given, *quick(backbone, tmp_path / "e"))
    assert status == 2
    assert words in " ".join(err.split())
    assert "Traceback" not in err
    assert not (tmp_path / "e").exists()


REAL = os.environ.get("HEADCLIP_REAL_DATA", "")


@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="HEADCLIP_REAL_DATA names no folder")
@pytest.mark.parametrize(
    ("spec", "metrics"),
    [("sdd=SDD", 10), ("brainmri=BrainMRI", 4), ("kvasir=Kvasir-SEG", 6), ("isic2018=ISIC2018", 6)],
)
def test_real_images(capsys, backbone, tmp_path, spec, metrics):
    name, _, folder = spec.partition("=")
    data = f"{name}={Path(REAL) / folder}"
    status, _, err = call(capsys, "evaluate", "--data", data, *quick(backbone, tmp_path / "e", "--limit", "4"))
    assert status == 0, err
    found = json.loads((tmp_path / "e/results.json").read_text())["results"][0]
    assert len(found["mean"]["exact"]) == metrics
    assert found["not_scored"] == []


def test_quiet_hides_the_warnings_about_a_dataset_too(capsys, caplog, backbone, tmp_path):
    cups = write_set(tmp_path / "cups", ("cup", "nut"))
    shutil.rmtree(cups / "nut/test/good")
    common = ("evaluate", "--data", cups, "--backbone", backbone, "--image-size", 42, "--bootstrap", 0)
    assert call(capsys, *common, "--out", tmp_path / "loud")[0] == 0
    assert "nut has no normal image" in caplog.text
    caplog.clear()
    level = logging.getLogger("headclip").level
    status, out, _ = call(capsys, *common, "--out", tmp_path / "quiet", "--quiet")
    assert (status, out) == (0, "")
    assert caplog.text == ""
    assert logging.getLogger("headclip").level == level  # for what comes next in this process


def test_a_finished_evaluation_is_left_as_it_is_unless_something_changed(capsys, backbone, tmp_path):
    cups, out = write_set(tmp_path / "cups"), tmp_path / "e"
    common = ["evaluate", "--data", cups, "--backbone", backbone, "--image-size", 42, "--bootstrap", 0, "--out", out]
    call(capsys, *common)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    status, said, _ = call(capsys, *common, "--resume")
    assert (status, "nothing has changed since" in " ".join(said.split())) == (0, True)
    status, said, _ = call(capsys, *common, "--resume", "--json")
    assert json.loads(said) == json.loads((out / "results.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    status, said, _ = call(capsys, *common, "--resume", "--bootstrap", 5)
    assert "nothing has changed" not in said
    assert json.loads((out / "results.json").read_text())["options"]["bootstrap"] == 5
    mask(cups / "cup/ground_truth/bent/0_mask.png", (0, 30, 0, 30))
    status, said, _ = call(capsys, *common, "--resume", "--bootstrap", 5)
    assert "nothing has changed" not in said
    status, said, _ = call(capsys, *common, "--resume", "--bootstrap", 5)
    assert "nothing has changed" in " ".join(said.split())
    (cups / "cup/test/good/0.png").write_bytes(b"no image")
    for _ in range(2):  # one that could not be judged is tried again
        status, said, _ = call(capsys, *common, "--resume", "--bootstrap", 5)
        assert "nothing has changed" not in " ".join(said.split())
