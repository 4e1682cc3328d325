"""`--engine ray` without Ray: what is cut, sent, lost and put on record, by a crew that works in this process."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data.volume_files import write_tiff
from engine.engine_files import InlineCrew, comparable, download, load_fake, memory_url, same_runs, unlucky, upload
from headclip.data.discover import ImageFile
from headclip.engine import crew as crew_module
from headclip.engine import workers
from headclip.engine.chunks import Chunk, FileRef, Result, plan
from headclip.engine.crew import LOST, Crew, CrewError, judge_all
from headclip.engine.predicting import Model, Settings, predict_on_ray
from headclip.engine.storage import Place
from headclip.errors import HeadclipError, InputError
from headclip.inference.predict import predict_run
from headclip.judgement.choosing import Judging
from headclip.judgement.verdicts import Criteria
from headclip.runs.files import RunFolderError
from headclip.runs.rejudge import rejudge
from headclip.runs.run import Entry, Row, Run
from inference.fake_detector import FakeDetector

CREW = Crew(2, 2)
JUDGING = Judging(threshold=0.2, pixel_threshold=0.3, min_area=1)


def model(**arguments):
    return Model(load_fake, {"batch_size": 4, **arguments})


def run(inputs, out, **settings):
    return predict_on_ray(model(), [str(inputs)], out, CREW, Settings(**settings))


@given(st.integers(0, 300), st.integers(1, 9), st.integers(1, 5))
def test_chunks_hold_every_file_once_in_whole_batches(count, batch_size, actors):
    files = [FileRef(str(number), "") for number in range(count)]
    chunks = plan(files, batch_size, actors)
    assert [ref for chunk in chunks for ref in chunk.files] == files
    assert all(len(chunk.files) % batch_size == 0 for chunk in chunks[:-1])
    assert len({chunk.number for chunk in chunks}) == len(chunks)


@pytest.mark.parametrize(
    ("text", "sizes"), [("3", (3, 3)), ("1:8", (1, 8)), ("8:1", None), ("0", None), ("x", None), ("1:2:3", None)]
)
def test_actors(text, sizes):
    if sizes is None:
        with pytest.raises(InputError, match="--actors"):
            Crew.parse(text)
    else:
        assert (Crew.parse(text).least, Crew.parse(text).most) == sizes


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_folder_as_on_one_machine(inline, pictures, tmp_path, monkeypatch, shared):
    """Also where workers have no disk in common with this machine, and files travel."""
    if not shared:
        monkeypatch.setattr(workers.Target, "in_reach", None)
    one = predict_run(FakeDetector(), [pictures], tmp_path / "one", judging=JUDGING)
    many = run(pictures, tmp_path / "many", judging=JUDGING)
    same_runs(tmp_path / "one", tmp_path / "many")
    assert (len(many.ok), len(many.failed)) == (len(one.ok), len(one.failed)) == (12, 5)
    first, second = (Run.open(tmp_path / name) for name in ("one", "many"))
    assert first.facts["judgement"] == second.facts["judgement"]
    assert first.load_regions() == second.load_regions()
    assert first.settings == second.settings
    assert not (tmp_path / "many" / ".tmp").exists()


def test_a_run_goes_on(inline, pictures, tmp_path):
    run(pictures, tmp_path / "run")
    inline.chunks.clear()
    (pictures / "bad" / "empty.png").write_bytes((pictures / "left" / "part 1.png").read_bytes())
    summary = run(pictures, tmp_path / "run", resume=True)
    judged = {ref.name for chunk in inline.chunks for ref in chunk.files}
    assert judged.isdisjoint({f"left/part {n}.png" for n in range(1, 12, 2)})
    assert len(summary.ok) == 13
    with pytest.raises(RunFolderError, match="--resume"):
        run(pictures, tmp_path / "run")


@pytest.mark.parametrize("inputs_in_store", [True, False])
def test_a_run_in_a_store(inline, pictures, tmp_path, inputs_in_store):
    source, out = memory_url("in"), memory_url("run")
    upload(pictures, source)
    given_inputs = source if inputs_in_store else pictures
    summary = run(given_inputs, out, judging=JUDGING, arguments={"inputs": [str(given_inputs)]})
    predict_run(FakeDetector(), [pictures], tmp_path / "one", judging=JUDGING)
    copy = Run.open(download(out, tmp_path / "copy"))
    one = Run.open(tmp_path / "one")
    assert copy.finished
    assert comparable(copy.rows) == comparable(one.rows) == comparable(summary.rows)
    assert copy.load_regions() == one.load_regions()
    assert copy.facts["judgement"] == one.facts["judgement"]
    for row in one.ok:
        assert np.array_equal(copy.load_map(row), one.load_map(row))
        assert copy.preview_path(row).read_bytes() == one.preview_path(row).read_bytes()
        assert copy.mask_path(row).is_file() == one.mask_path(row).is_file()
    parts = sorted((tmp_path / "copy" / "parts").iterdir())
    names = [name for part in parts for name in pq.read_table(part)["path"].to_pylist()]
    assert sorted(names) == sorted(row.path for row in one.rows)


def test_the_copy_of_a_stored_run_is_a_run_folder(inline, pictures, tmp_path):
    source, out = memory_url("in"), memory_url("run")
    upload(pictures, source)
    run(source, out, judging=JUDGING)
    copy = download(out, tmp_path / "copy")
    inline.chunks.clear()
    run(source, copy, resume=True)
    assert [ref.name.split("/")[0] for chunk in inline.chunks for ref in chunk.files] == ["bad"] * 5
    page = Run.open(copy)
    assert page.report.is_file()
    assert all(page.overlay_path(row).is_file() for row in page.ok)
    again = rejudge(copy, Criteria.manual(0.9))
    assert {row.verdict for row in again.run.ok} == {"ok"}


def test_a_stored_run_goes_on(inline, pictures, monkeypatch):
    source, out = memory_url("in"), memory_url("run")
    upload(pictures, source)
    answered = []

    def stop(result):
        answered.append(result)
        if len(answered) == 3:
            raise KeyboardInterrupt
        return [result]

    inline.mishap = stop
    with pytest.raises(KeyboardInterrupt):
        run(source, out)
    assert json.loads(Place(out).read("run.json"))["status"] == "interrupted"
    done = {row["path"] for name in Place(out).list("parts") for row in _part(out, name) if row["status"] == "ok"}
    assert done
    inline.mishap = lambda result: [result]
    inline.chunks.clear()
    with pytest.raises(RunFolderError, match="unfinished run"):
        run(source, out)
    with pytest.raises(RunFolderError, match="other thresholds"):
        run(source, out, resume=True, judging=JUDGING)
    summary = run(source, out, resume=True)
    again = {ref.name for chunk in inline.chunks for ref in chunk.files}
    assert again.isdisjoint(done)
    assert len(summary.rows) == len({row.path for row in summary.rows}) == 17
    Place(source).write("left/part 1.png", Place(source).read("left/part 3.png"))  # another content
    inline.chunks.clear()
    run(source, out, resume=True)
    assert "left/part 1.png" in {ref.name for chunk in inline.chunks for ref in chunk.files}
    inline.chunks.clear()
    assert len(run(source, out, overwrite=True).rows) == 17
    assert sum(len(chunk.files) for chunk in inline.chunks) == 17


def test_an_image_judged_again_has_no_regions_of_before(inline):
    source, out = memory_url("in"), memory_url("run")
    dark = np.zeros((40, 40, 3), np.uint8)
    bright = dark.copy()
    bright[10:20, 10:20] = 255
    for name, pixels in (("a.png", bright), ("b.png", bright)):
        Place(source).write(name, _png(pixels))
    run(source, out, judging=JUDGING)
    Place(source).write("a.png", _png(dark))
    for resumed in range(2):  # from what is in memory, and from what is stored
        summary = run(source, out, resume=True)
        found = [json.loads(line)["path"] for line in Place(out).read("regions.jsonl").splitlines()]
        assert found == ["b.png"], resumed
        assert [row.regions for row in summary.rows] == [0, 1]


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _part(out, name):
    return pq.read_table(io.BytesIO(Place(out).read(name))).to_pylist()


def test_foreign_places_are_left_alone(inline, pictures):
    out = memory_url("mine")
    Place(out).write("important.txt", b"x")
    with pytest.raises(RunFolderError, match="holds no run"):
        run(pictures, out, overwrite=True)
    assert Place(out).read("important.txt") == b"x"


def test_mixed_inputs(inline, pictures, tmp_path):
    with pytest.raises(InputError, match="some in object storage"):
        predict_on_ray(model(), [str(pictures), memory_url()], tmp_path / "run", CREW, Settings())


def test_a_store_that_refuses_ends_the_run(inline, pictures, monkeypatch):
    real = Place.write

    def refuse(self, name, content):
        if name.startswith("maps/"):
            raise PermissionError("access denied")
        real(self, name, content)

    monkeypatch.setattr(Place, "write", refuse)
    out = memory_url("run")
    with pytest.raises(CrewError, match=r"access denied.*--resume"):
        run(pictures, out)
    assert json.loads(Place(out).read("run.json"))["status"] == "interrupted"


def test_objects_that_cannot_be_read_are_rows(inline, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("headclip.engine.storage._PAUSE", 0.0)
    source = memory_url("in")
    upload(pictures, source)
    real = Place.read

    def vanish(self, name):
        if name == "left/part 3.png":
            raise FileNotFoundError(name)
        if name == "left/part 5.png":
            raise OSError("connection reset")
        return real(self, name)

    monkeypatch.setattr(Place, "read", vanish)
    rows = {row.path: row for row in run(source, tmp_path / "run").rows}
    assert rows["left/part 3.png"].reason == "the file does not exist"
    assert "connection reset" in rows["left/part 5.png"].reason
    assert sum(row.status == "ok" for row in rows.values()) == 10


def test_the_wrong_weights_are_refused(pictures):
    class Other(FakeDetector):
        def describe(self):
            return super().describe() | {"backbone_hash": "other"}

    task = workers.PredictTask(lambda arguments: Other(), {}, workers.Target(), hashes={"backbone_hash": "first"})
    with pytest.raises(HeadclipError, match="other weights"):
        workers.PredictWorker(task)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_every_file_has_one_record_whatever_happens(monkeypatch, seed, count):
    inline = InlineCrew()
    inline.mishap = unlucky(seed)
    monkeypatch.setattr(crew_module, "_stream", inline.stream)
    files = [FileRef(str(number), "") for number in range(count)]
    lost = []
    results = judge_all(CREW, _Echo, files, 3, lambda ref, reason: lost.append((ref.name, reason)))
    judged = [entry.row.path for result in results for entry in result.entries]
    assert Counter(judged) + Counter(name for name, _ in lost) == Counter(ref.name for ref in files)
    assert all(reason in (LOST, "ValueError: a bit fell over") for _, reason in lost)


class _Echo:
    """A worker that judges everything as good."""

    def __call__(self, chunk: Chunk) -> Result:
        return Result(chunk.number, [Entry(Row(ref.name, "ok"), 0, 0) for ref in chunk.files])


def test_one_deadly_image_costs_one_row(inline, pictures, tmp_path):
    Image.new("RGB", (40, 40), "white").save(pictures / "left" / "white.png")

    def die(result):
        white = any(entry.row.path == "left/white.png" for entry in result.entries)
        return [] if white else [result]

    inline.mishap = die

    summary = predict_on_ray(
        Model(lambda arguments: FakeDetector(), {}), [str(pictures)], tmp_path / "run", CREW, Settings()
    )
    rows = {row.path: row for row in summary.rows}
    assert rows["left/white.png"].status == "failed"
    assert rows["left/white.png"].reason == LOST
    assert len(summary.ok) == 12


def test_shards_and_a_crew(inline, pictures, tmp_path):
    from headclip.runs.shards import Shard

    for index in (1, 2):
        run(pictures, tmp_path / "run", shard=Shard(index, 2))
    parts = [Run.open(tmp_path / "run" / "shards" / f"{index}-of-2") for index in (1, 2)]
    assert sum(len(part.rows) for part in parts) == 17
    with pytest.raises(InputError, match="--shard"):
        run(pictures, memory_url("run"), shard=Shard(1, 2))


def test_results_of_a_vanished_folder_are_fatal(pictures, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "mark").touch()
    worker = workers.PredictWorker(workers.PredictTask(load_fake, {}, workers.Target(str(folder), "mark")))
    (folder / "maps").write_text("in the way")
    ref = FileRef("left/part 1.png", str(pictures / "left" / "part 1.png"))
    result = worker(Chunk(0, (ref,)))
    assert result.entries[0].row.status == "failed"  # this image's files cannot be placed; others could
    shutil.rmtree(folder)
    folder.write_text("a file where the folder was")
    result = worker(Chunk(1, (ref,)))
    assert (result.fatal, result.error, list(result.files)[:1]) == (None, None, ["maps/left/part 1.png.png"])


def test_a_stack_in_a_store_is_not_judged_by_its_first_page(tmp_path):
    pages = [np.full((20, 20), value, np.uint8) for value in (10, 200)]
    write_tiff(tmp_path / "in/stack.tif", pages)
    write_tiff(tmp_path / "in/lone.tif", pages[:1])
    url = memory_url("stacks")
    upload(tmp_path / "in", url)
    refs = [FileRef(name, name) for name in ("stack.tif", "lone.tif")]
    stack, lone = (workers.fetch(Place(url), ref, ImageFile(Path(ref.path), ref.name), 10**6) for ref in refs)
    assert stack.pixels is None
    assert "a TIFF of 2 pages" in stack.reason
    assert lone.pixels.shape == (20, 20, 3)
