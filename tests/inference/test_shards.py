"""Shards of a run, merged, are the run of a single process; whatever was killed, changed, renamed or left out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headclip.data.discover import discover
from headclip.errors import InputError
from headclip.inference.merging import merge_runs
from headclip.inference.predict import predict_run
from headclip.judgement.choosing import Judging
from headclip.runs.files import RunFolderError
from headclip.runs.run import Run
from headclip.runs.shards import Shard, keep_listing, read_listing, share_of
from headclip.runs.writer import RunWriter
from inference.fake_detector import FakeDetector
from inference.pictures import write_pictures

KINDS = ("maps", "previews", "overlays")
# Judges shard argv[3] of argv[1] into argv[2], slowly.
SCRIPT = """
import sys
sys.path[:0] = [sys.argv[4]]
from headclip.inference.predict import predict_run
from headclip.runs.shards import Shard
from inference.fake_detector import FakeDetector
predict_run(FakeDetector(batch_size=1, seconds=0.05), [sys.argv[1]], sys.argv[2], shard=Shard.parse(sys.argv[3]), resume=True)
"""  # noqa: E501
# Merges argv[1]; dies before it puts file number argv[2] in place.
MERGE = """
import sys
sys.path[:0] = [sys.argv[3]]
from dying import die_before_file
from headclip.inference.merging import merge_runs
die_before_file(int(sys.argv[2]), by_signal=False)
merge_runs([sys.argv[1]])
"""


def timeless(rows) -> list:
    return [replace(row, seconds=None) for row in rows]


def judge(pictures: Path, out: Path, index: int, count: int = 3, **options) -> FakeDetector:
    detector = FakeDetector()
    predict_run(detector, [pictures], out, shard=Shard(index, count), **options)
    return detector


def judge_all(pictures: Path, out: Path, count: int = 3, **options) -> int:
    """How many images the model has seen."""
    return sum(sum(judge(pictures, out, index, count, **options).batches) for index in range(1, count + 1))


def check_whole(out: Path, pictures: Path, **options) -> None:
    """Tables, files and scale are those of one process."""
    clean = predict_run(FakeDetector(), [pictures], out.with_name("clean"), overwrite=True, **options)
    run, other = Run.open(out), Run.open(clean.folder)
    assert run.finished
    assert timeless(run.rows) == timeless(clean.rows)
    assert run.facts["scale"] == other.facts["scale"]
    assert run.facts["counts"] == other.facts["counts"]
    assert run.facts["judgement"] == other.facts["judgement"]
    assert run.load_regions() == other.load_regions()
    for kind in (*KINDS, "masks"):
        names = {file.relative_to(clean.folder) for file in (clean.folder / kind).rglob("*") if file.is_file()}
        assert names == {file.relative_to(out) for file in (out / kind).rglob("*") if file.is_file()}
        assert all((out / name).read_bytes() == (clean.folder / name).read_bytes() for name in names)
    assert not (out / ".tmp").exists()
    assert "report" in run.report.read_text() or run.report.stat().st_size > 10_000


def test_the_share_of_an_image_depends_on_its_name_alone(pictures):
    images = discover([pictures])
    parts = [Shard(index, 3).of(images) for index in (1, 2, 3)]
    assert sorted(file.name for part in parts for file in part) == sorted(file.name for file in images)
    assert share_of("right/part 0.png", 3) == share_of("right/part 0.png", 3)
    alone = discover([pictures / "left"])  # other names: relative to another folder
    assert all(share_of(f"left/{file.name}", 3) == Shard(share_of(f"left/{file.name}", 3), 3).index for file in alone)
    shares = [share_of(f"{number}.png", 4) for number in range(4000)]
    assert all(850 < shares.count(index) < 1150 for index in (1, 2, 3, 4))


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/4/2"])
def test_nonsensical_shards_are_refused(text):
    with pytest.raises(InputError, match="i/n"):
        Shard.parse(text)


def test_merged_shards_are_the_run_of_one_process(pictures, bad_files, tmp_path):
    out = tmp_path / "run"
    assert judge_all(pictures, out) == 12
    summary = merge_runs([out])
    assert (len(summary.ok), len(summary.failed)) == (12, 5)
    check_whole(out, pictures)


def test_verdicts_and_regions_are_those_of_one_process(pictures, tmp_path):
    out = tmp_path / "run"
    judging = Judging(threshold=0.2, pixel_threshold=0.3)
    judge_all(pictures, out, judging=judging)
    merge_runs([out])
    check_whole(out, pictures, judging=judging)
    assert Run.open(out).load_regions()
    assert len({row.verdict for row in Run.open(out).rows}) == 2


def test_parts_may_lie_anywhere_and_the_whole_goes_where_it_is_told(pictures, tmp_path):
    for index in (1, 2, 3):
        judge(pictures, tmp_path / f"node{index}", index)
    with pytest.raises(RunFolderError, match="--out"):
        merge_runs([tmp_path / f"node{index}" for index in (1, 2, 3)])
    folders = [tmp_path / "node2", tmp_path / "node3/shards/3-of-3", tmp_path / "node1"]
    merge_runs(folders, tmp_path / "run")
    check_whole(tmp_path / "run", pictures)
    with pytest.raises(RunFolderError, match="not merged from shards"):
        merge_runs(folders, tmp_path / "clean")


def test_merging_again_changes_nothing_and_a_new_image_is_added(pictures, tmp_path):
    out = tmp_path / "run"
    judge_all(pictures, out)
    merge_runs([out])
    before = (out / "run.json").read_bytes()
    again = merge_runs([out])
    assert (again.judged, len(again.rows)) == (0, 12)
    assert (out / "run.json").read_bytes() == before
    write_pictures(pictures, 14)  # two more
    assert judge_all(pictures, out, resume=True) == 2
    assert merge_runs([out]).judged == 2
    check_whole(out, pictures)
    with pytest.raises(RunFolderError, match="made without shards"):
        judge(pictures, tmp_path / "clean", 1)


def test_what_is_missing_is_named(pictures, tmp_path):
    out = tmp_path / "run"
    judge(pictures, out, 2)
    with pytest.raises(RunFolderError, match=r"2 of 3 shards are missing: 1/3, 3/3"):
        merge_runs([out])
    judge(pictures, out, 1)

    class Stopping(FakeDetector):
        def predict_arrays(self, images, /):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_run(Stopping(), [pictures], out, shard=Shard(3, 3))
    with pytest.raises(RunFolderError, match=r"shard 3/3 .* not finished \(0 of \d images\)"):
        merge_runs([out])
    judge(pictures, out, 3, resume=True)
    judge(pictures, tmp_path / "other", 3)
    with pytest.raises(RunFolderError, match="3/3 is there twice"):
        merge_runs([out, tmp_path / "other"])
    journal = out / "shards/2-of-3/progress.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    lost = json.loads(lines[-1])["row"]["path"]
    with pytest.raises(RunFolderError, match=f"no row for 1 .*{lost}"):
        merge_runs([out])
    assert judge_all(pictures, out, resume=True) == 1
    merge_runs([out])
    check_whole(out, pictures)


def test_images_that_changed_between_the_shards_are_named(pictures, tmp_path):
    out = tmp_path / "run"
    judge(pictures, out, 1, 2)
    Image.new("RGB", (20, 20), "white").save(pictures / "late.png")
    judge(pictures, out, 2, 2)
    with pytest.raises(RunFolderError, match=r"2/2 saw 1 that 1/2 did not see \(late.png\)"):
        merge_runs([out])
    judge_all(pictures, out, 2, resume=True)
    merge_runs([out])
    check_whole(out, pictures)


def test_other_settings_or_thresholds_are_not_joined(pictures, tmp_path):
    out = tmp_path / "run"
    judge(pictures, out, 1, 2)
    predict_run(FakeDetector("other"), [pictures], out, shard=Shard(2, 2))
    with pytest.raises(RunFolderError, match=r"different settings \(backbone.name: 'fake' and 'other'\)"):
        merge_runs([out])
    judge(pictures, out, 2, 2, overwrite=True, judging=Judging(threshold=0.3))
    with pytest.raises(RunFolderError, match="different thresholds"):
        merge_runs([out])


def test_shards_that_saw_the_images_elsewhere_need_a_root(pictures, tmp_path):
    out = tmp_path / "run"
    judge(pictures, out, 1, 2)
    elsewhere = tmp_path / "mounted"
    elsewhere.symlink_to(pictures)
    judge(elsewhere, out, 2, 2)
    with pytest.raises(RunFolderError, match="--root"):
        merge_runs([out])
    merge_runs([out], root=pictures)
    check_whole(out, pictures)


def test_a_damaged_part_is_named_and_mended(pictures, tmp_path):
    out = tmp_path / "run"
    judge_all(pictures, out, 2)
    name = Run.open(out / "shards/2-of-2").rows[0].path
    (out / "shards/2-of-2/maps" / f"{name}.png").write_bytes(b"")
    with pytest.raises(RunFolderError, match=f"damaged .*{name}.*shard 2/2"):
        merge_runs([out])
    assert judge_all(pictures, out, 2, resume=True) == 1
    merge_runs([out], overwrite=True)
    check_whole(out, pictures)
    listing = next((out / "shards").glob("listing-*.parquet"))
    digest = keep_listing(
        tmp_path, read_listing(out / "shards", Run.open(out / "shards/1-of-2").facts["shard"]["listing"])
    )
    listing.write_bytes((tmp_path / listing.name).read_bytes()[:-50])
    with pytest.raises(RunFolderError, match="list of images"):
        read_listing(out / "shards", digest)


def test_two_processes_on_one_shard(pictures, tmp_path):
    out = tmp_path / "run"
    images = discover([pictures])
    with (
        RunWriter(Shard(1, 2).folder(out), images, FakeDetector().describe()),
        pytest.raises(RunFolderError, match="another headclip is writing"),
    ):
        judge(pictures, out, 1, 2, resume=True)


# --- what is done, by content


@pytest.mark.parametrize("sharded", [False, True])
def test_resume_goes_by_content(pictures, tmp_path, sharded):
    """Touched: kept. Changed, with the old size and time: judged. Renamed: kept under its new name, once."""
    out = tmp_path / "run"
    touched, changed, renamed = (pictures / f"left/part {number}.png" for number in (1, 3, 5))
    negative(changed)
    work = judge_all if sharded else lambda *given, **options: sum(_whole(*given, **options).batches)
    work(pictures, out)
    os.utime(touched, ns=(1, 1))
    status = changed.stat()
    assert negative(changed) == status.st_size
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    (pictures / "new").mkdir()
    renamed.rename(pictures / "new/name 5.png")
    assert work(pictures, out, resume=True) == 1
    if sharded:
        merge_runs([out])
    assert "left/part 5.png" not in [row.path for row in Run.open(out).rows]
    assert not (out / "maps/left/part 5.png.png").exists()
    predict_run(FakeDetector(), [pictures], out, resume=True)  # also for the next one the run is whole
    check_whole(out, pictures)


def _whole(pictures: Path, out: Path, **options) -> FakeDetector:
    detector = FakeDetector()
    predict_run(detector, [pictures], out, **options)
    return detector


def negative(path: Path) -> int:
    """Replace a picture by its negative, as BMP, so that all have one size in bytes, which is returned."""
    with Image.open(path) as image:
        pixels = 255 - np.asarray(image)
    Image.fromarray(pixels).save(path, "BMP")
    return path.stat().st_size


def test_renamed_and_its_place_taken(pictures, tmp_path):
    out = tmp_path / "run"
    _whole(pictures, out)
    first, second = pictures / "left/part 1.png", pictures / "left/part 3.png"
    first.rename(pictures / "left/old 1.png")
    first.write_bytes(second.read_bytes())
    detector = _whole(pictures, out, resume=True)
    assert (
        sum(detector.batches) == 2
    )  # the name is still in use, so both are judged: what cannot be told is not guessed
    check_whole(out, pictures)


def test_another_division_takes_over_what_is_done(pictures, tmp_path):
    out = tmp_path / "run"
    judge_all(pictures, out, 2)
    assert judge_all(pictures, out, 3, resume=True) == 0
    with pytest.raises(RunFolderError, match="divisions by 2 and 3"):
        merge_runs([out])
    merge_runs([out / f"shards/{index}-of-3" for index in (1, 2, 3)])
    check_whole(out, pictures)


# --- kills


def test_killed_shards_go_on_and_lose_nothing(tmp_path):
    pictures, out = write_pictures(tmp_path / "in", 24), tmp_path / "run"
    tests = str(Path(__file__).parents[1])

    def start(index: int) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", SCRIPT, str(pictures), str(out), f"{index}/2", tests])

    journals = [out / f"shards/{index}-of-2/progress.jsonl" for index in (1, 2)]
    running = {journal: start(index) for index, journal in enumerate(journals, start=1)}
    deadline = time.monotonic() + 60
    while running:  # each as soon as it has got somewhere: one may be done before the other begins
        for journal, process in list(running.items()):
            if journal.exists() and journal.read_bytes().count(b"\n") >= 2:
                process.send_signal(signal.SIGKILL)
                assert process.wait() == -signal.SIGKILL
                del running[journal]
        assert time.monotonic() < deadline, "the shards did not get anywhere"
        time.sleep(0.005)
    with journals[0].open("ab") as file:  # a line that the kill cut short
        file.write(b'{"row": {"path": "left/part')
    with pytest.raises(RunFolderError, match="not finished"):
        merge_runs([out])
    kept = sum(len(Run.open(journal.parent).ok) for journal in journals)
    assert judge_all(pictures, out, 2, resume=True) == 24 - kept < 24
    merge_runs([out])
    check_whole(out, pictures)


# The order: run.json, 12 x (map, preview), 12 overlays, tables, report, run.json
@pytest.mark.parametrize("last", [6, 40])
def test_a_killed_merge_goes_on(pictures, tmp_path, last):
    out = tmp_path / "run"
    judge_all(pictures, out, 2)
    command = [sys.executable, "-c", MERGE, str(out), str(last), str(Path(__file__).parents[1])]
    assert subprocess.run(command).returncode == 9
    assert not (out / "run.json").exists() or not Run.open(out).finished
    merge_runs([out])
    check_whole(out, pictures)
