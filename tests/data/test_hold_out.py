"""`scripts/hold_out.py` takes the same pictures away for the same seed, and each once."""

from __future__ import annotations

import sys

import pytest

import hold_out


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    for index in range(20):
        place = tmp_path / "all" / f"kind-{index % 3}" / f"{index}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    (tmp_path / "all" / "copyright.txt").write_text("mine")
    return tmp_path / "all"


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["hold_out.py", *map(str, words)])
    hold_out.main()


def test_files_are_parted_and_keep_their_places(folder, tmp_path, monkeypatch):
    before = names(folder)
    run(monkeypatch, folder, tmp_path / "held", "--count", 6, "--seed", 3)
    assert len(names(tmp_path / "held")) == 6
    assert "copyright.txt" in names(folder)
    assert names(folder) | names(tmp_path / "held") == before
    assert not names(folder) & names(tmp_path / "held")


@pytest.mark.parametrize("count", [0, 20, -1])
def test_a_count_that_leaves_nothing_is_refused(folder, tmp_path, monkeypatch, count):
    with pytest.raises(SystemExit):
        run(monkeypatch, folder, tmp_path / "held", "--count", count)
    assert not (tmp_path / "held").exists()


def test_a_second_choice_is_refused(folder, tmp_path, monkeypatch):
    run(monkeypatch, folder, tmp_path / "held", "--count", 2)
    before = names(folder)
    with pytest.raises(SystemExit):
        run(monkeypatch, folder, tmp_path / "held", "--count", 2)
    assert names(folder) == before


def test_pictures_of_one_thing_stay_together(tmp_path, monkeypatch):
    folder = tmp_path / "all"
    folder.mkdir()
    for index in range(24):
        (folder / f"cup-{index // 2:03d}-{index % 2}.png").write_bytes(b"")
    run(monkeypatch, folder, tmp_path / "held", "--count", 5, r"--together=-[0-9]+\.png$")
    held = names(tmp_path / "held")
    assert len(held) == 10
    assert {name.replace("-0.", "-1.") for name in held} <= held
