"""A quick round of fuzzing: what reads foreign input gives a result or a HeadclipError; see scripts/fuzz.py."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zlib
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing.mutate import damage_bytes
from fuzzing.targets import Target, image_seeds, make_targets
from headclip.data.formats import HAS_AVIF
from headclip.errors import HeadclipError, ImageError, InputError

QUICK = {
    "merge": 4,
    "resumed: run.json": 4,
    "backbone": 6,
    "REST": 8,
    "training state": 6,
}  # what costs more for each input
VOLUMES = ["volume TIFF"]
if find_spec("nibabel"):
    VOLUMES += ["volume NIfTI", "volume NIfTI.gz", *(["volume DICOM"] if find_spec("pydicom") else [])]
NAMES = (
    "decode PNG", "decode TIFF", "decode JPEG", "decode BMP", "decode WEBP",
    *(["decode AVIF"] if HAS_AVIF else []),
    "manifest CSV", "manifest JSON",
    "checkpoint", "official checkpoint", "weights in zip", "backbone weights", "backbone config", "backbone vocabulary",
    "backbone merges", "training state", "pretraining recipe", "kept features", "index of kept features",
    "run: run.json", "run: progress.jsonl", "run: results.parquet", "run: regions.jsonl", "run: labels.csv",
    "run: maps/2.png.png", "resumed: run.json", "calibration", "pixel counts", "evaluation results",
    "merge run.json", "merge progress.jsonl", "merge results.parquet", "merge regions.jsonl", "merge map",
    "merge list of images", "merge evaluation", "merge rows of an evaluation", "merge state of an evaluation",
    *VOLUMES,
    "REST: body", "REST: form", "REST: request",
)  # fmt: skip


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return make_targets(tmp_path_factory.mktemp("fuzz"))


def test_every_target_is_tried_and_reads_sound_files(targets):
    assert tuple(targets) == NAMES
    for target in targets.values():
        assert all(target.try_one(content) for content in target.seeds), target.name


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_damaged_input(targets, name):
    count = next((count for start, count in QUICK.items() if name.startswith(start)), 25)

    @settings(max_examples=count, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32))
    def try_one(seed):
        target = targets[name]
        target.try_one(target.make(random.Random(seed)))

    try_one()


def test_what_is_no_headclip_error_would_be_noticed():
    def read(content):
        raise KeyError("x") if content else ValueError

    with pytest.raises(KeyError):
        Target("bad", [b"a"], (damage_bytes,), read).try_one(b"a")


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_bomb_beside_the_pixels_is_not_unpacked(kind):
    from headclip.data.decode import decode

    head = {b"zTXt": b"a\0\0", b"iCCP": b"a\0\0", b"iTXt": b"a\0\1\0\0\0"}[kind]
    body = head + zlib.compress(bytes(64 << 20), 9)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    content = image_seeds()["PNG"][0]
    with contextlib.suppress(ImageError):
        assert decode(content[:33] + chunk + content[33:]).shape == (24, 30, 3)


def test_nesting_without_end_is_no_crash(tmp_path):
    from headclip.data.manifest import read_manifest
    from headclip.data.reading import Reading
    from headclip.judgement.calibration import Calibration
    from headclip.runs.run import read_facts

    for name in ("list.json", "calibration.json", "run.json"):
        (tmp_path / name).write_text("[" * 200_000)
    with pytest.raises(HeadclipError):
        read_manifest(Reading(tmp_path), tmp_path / "list.json")
    with pytest.raises(HeadclipError):
        Calibration.load(tmp_path / "calibration.json")
    assert read_facts(tmp_path) is None


def test_an_outline_larger_than_any_image_is_refused(tmp_path):
    from headclip.data.coco import CocoOutline, decode_runs

    with pytest.raises(ImageError):
        CocoOutline(10**9, 10**9, ()).draw()
    with pytest.raises(ImageError):
        decode_runs({"size": [10**6, 10**6], "counts": [10**12]})


def test_a_tensor_that_repeats_one_value_a_billion_times_is_refused(tmp_path):
    import torch

    from headclip.clip.files import read_state
    from headclip.errors import BackboneError

    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "bomb.pt")
    with pytest.raises(BackboneError, match="larger than what the file holds"):
        read_state(tmp_path / "bomb.pt")


def test_a_zip_archive_that_claims_more_than_it_holds_is_refused(tmp_path):
    import zipfile

    from headclip.clip.files import read_state
    from headclip.errors import BackboneError
    from headclip.training.files import load_torch

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(64 << 20))
    (tmp_path / "bomb.pt").write_bytes(buffer.getvalue())
    with pytest.raises(BackboneError, match="compressed"):
        read_state(tmp_path / "bomb.pt")
    with pytest.raises(InputError, match="compressed"):
        load_torch(tmp_path / "bomb.pt")


def test_a_row_of_another_kind_is_left_out_of_a_journal(tmp_path):
    from headclip.runs.run import read_journal

    sound = {"path": "a.png", "status": "ok", "score": 0.5}
    rows = [
        sound,
        {**sound, "path": 3},
        {**sound, "path": "b.png", "score": "high"},
        {**sound, "path": "c", "status": 1},
    ]
    lines = [json.dumps({"row": row, "size": 1, "mtime_ns": 1}) for row in rows]
    (tmp_path / "progress.jsonl").write_text("\n".join(lines) + "\n")
    assert list(read_journal(tmp_path / "progress.jsonl")[0]) == ["a.png"]
