"""Every table in CSV is read back with its rows as they were, whatever the names of files hold."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from headclip.csv_text import CsvText
from headclip.data.volumes.names import write_key
from headclip.inference.predict import predict_run
from headclip.judgement.choosing import Judging
from headclip.runs.exports import region_table
from headclip.runs.records import labels_bytes, read_labels
from headclip.runs.run import Row, Run, csv_bytes
from headclip.web.marks import Mark, labels_csv
from inference.fake_detector import FakeDetector

ODD = ["a\rb.png", "\r", "c\nd.png", "e\r\nf.png", 'g"h.png', "i,j.png", "plain.png", "ends\r\n"]


def names_in(text: str, column: str = "path") -> list[str]:
    return [row[column] for row in csv.DictReader(io.StringIO(text, newline=""))]


def test_cells_come_back_as_they_were():
    buffer = CsvText()
    writer = csv.writer(buffer)
    for name in ODD:
        writer.writerow(["first", name])
        writer.writerow([name, "last"])
    rows = list(csv.reader(io.StringIO(buffer.getvalue(), newline="")))
    assert rows == [row for name in ODD for row in (["first", name], [name, "last"])]
    assert buffer.getvalue().startswith('first,"a\rb.png"\n')
    assert "plain.png,last\n" in buffer.getvalue()


def test_tables_of_names(tmp_path):
    rows = [Row(name, "failed", "no image") for name in ODD]
    assert names_in(csv_bytes(rows).decode()) == ODD
    labels = dict.fromkeys(ODD, 1)
    (tmp_path / "labels.csv").write_bytes(labels_bytes(labels))
    assert read_labels(tmp_path) == labels
    marks = {name: Mark(name, "miss", 0.5, "now") for name in ODD}
    assert names_in(labels_csv(marks, {}), "image") == sorted(ODD)
    write_key(tmp_path / "key.csv", [(name, Path("/x")) for name in ODD], tmp_path / "run")
    assert names_in((tmp_path / "key.csv").read_bytes().decode()) == ODD


def test_the_tables_of_a_run(tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("L", (30, 30), 200).save(tmp_path / "in/a\rb.png")
    predict_run(
        FakeDetector(), [tmp_path / "in"], tmp_path / "run", judging=Judging(threshold=0.1, pixel_threshold=0.4)
    )
    run = Run.open(tmp_path / "run")
    assert names_in((tmp_path / "run/results.csv").read_bytes().decode()) == ["a\rb.png"]
    assert names_in(region_table(run, run.ok, run.load_regions())) == ["a\rb.png"]


@pytest.mark.parametrize("name", ODD)
def test_numbers_stay_where_they_were(name):
    row = replace(Row(name, "ok"), score=0.5, height=8, width=9)
    found = next(csv.DictReader(io.StringIO(csv_bytes([row]).decode(), newline="")))
    assert (found["path"], found["score"], found["height"], found["width"]) == (name, "0.500000", "8", "9")
