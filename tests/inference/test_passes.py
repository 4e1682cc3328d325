"""Batch sizes, passes side by side, and what happens when memory runs out."""

import numpy as np
import pytest
import torch

from headclip import Detector, memory
from headclip.clip.config import ClipConfig, known_architectures
from headclip.inference import passes
from headclip.inference.passes import choose_batch_size, choose_passes, divided_threads, pass_bytes
from headclip.inference.predict import predict_run
from headclip.inference.shared import PassGroup
from headclip.memory import available_memory, in_halves, is_memory_error
from tiny_clip import make_backbone, make_config

CPU = torch.device("cpu")
LARGE = ClipConfig.load(known_architectures()["ViT-L-14-336"]).vision
OUT_OF_MEMORY = (
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
)


class Narrow:
    """Stands in for `Detector._batch`, and fails as torch does where more than `most` images come at once."""

    def __init__(self, detector, most, error):
        self.inner, self.most, self.error, self.sizes = detector._batch, most, error, []

    def __call__(self, images, *rest):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise self.error
        return self.inner(images, *rest)


@pytest.fixture
def detector():
    with pytest.warns(UserWarning, match="no checkpoint"):
        return Detector(make_backbone(make_config()), device="cpu", precision="fp32", batch_size=8)


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (40, 30 + 10 * (n % 2), 3), dtype=np.uint8) for n in range(13)]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_running_out_of_memory_halves_the_batch_and_loses_no_image(detector, arrays, error, monkeypatch, caplog):
    plain = detector.predict_arrays(arrays)
    narrow = Narrow(detector, 2, error)
    monkeypatch.setattr(detector, "_batch", narrow)
    found = detector.predict_arrays(arrays)
    assert [round(p.score, 5) for p in found] == [round(p.score, 5) for p in plain]
    assert detector.batch_size == 2
    assert "out of memory with 7 images a pass; going on with 4" in caplog.text
    narrow.sizes.clear()
    detector.predict_arrays(arrays)  # later batches are small from the start
    assert max(narrow.sizes) == 2


def test_an_image_that_is_too_large_by_itself_is_an_error(detector, arrays, monkeypatch):
    monkeypatch.setattr(detector, "_batch", Narrow(detector, 0, OUT_OF_MEMORY[1]))
    with pytest.raises(torch.OutOfMemoryError):
        detector.predict_arrays(arrays)
    assert detector.batch_size == 1


def test_other_errors_are_passed_on_at_once(detector, arrays, monkeypatch):
    narrow = Narrow(detector, 2, ValueError("odd"))
    monkeypatch.setattr(detector, "_batch", narrow)
    with pytest.raises(ValueError, match="odd"):
        detector.predict_arrays(arrays)
    assert len(narrow.sizes) == 1


def test_several_methods_on_one_pass_recover_too(detector, arrays, monkeypatch):
    with pytest.warns(UserWarning, match="no checkpoint"):
        other = Detector(detector.backbone, method="anomalyclip", device="cpu", precision="fp32", batch_size=8)
    group = PassGroup({"one": detector, "other": other})
    inner = group._batch

    def batch(images, *rest):
        if len(images) > 3:
            raise OUT_OF_MEMORY[0]
        return inner(images, *rest)

    monkeypatch.setattr(group, "_batch", batch)
    pieces = list(group.pieces(arrays))
    for label in ("one", "other"):
        assert sorted(i for piece in pieces if piece.label == label for i in piece.indices) == list(range(13))
    assert group.batch_size <= 3


def test_halves_keep_the_order():
    tried = []

    def run(items):
        if len(items) > 2:
            raise MemoryError
        return [item * 10 for item in items]

    assert in_halves(run, range(7), tried.append) == [n * 10 for n in range(7)]
    assert tried == [4, 2, 2]


def test_memory_errors_are_told_from_others():
    assert all(is_memory_error(error) for error in OUT_OF_MEMORY)
    assert not is_memory_error(RuntimeError("shapes do not fit"))


def test_batch_size_follows_tower_and_number_of_patches():
    tiny = make_config().vision
    sizes = [choose_batch_size(tiny, n, CPU, torch.float32) for n in (1, 196, 1369, 10_000_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert choose_batch_size(LARGE, 37 * 37, CPU, torch.float32) == 1


def test_batch_size_is_bounded_by_free_memory(monkeypatch):
    tiny = make_config().vision
    one = pass_bytes(tiny, 16, torch.float32)
    monkeypatch.setattr(passes, "available_memory", lambda: 6 * one)
    assert choose_batch_size(tiny, 16, CPU, torch.float32) == 3
    monkeypatch.setattr(passes, "available_memory", lambda: None)
    assert choose_batch_size(tiny, 16, CPU, torch.float32) == passes.MOST_IMAGES


def test_the_estimate_covers_what_a_pass_takes():
    """A pass of ViT-L at 518 px: both streams, queries, keys, values and hidden values in fp32 are about 90 MB."""
    tokens = 37 * 37 + 1
    assert pass_bytes(LARGE, 37 * 37, torch.float32) > 4 * tokens * (5 * LARGE.width + 2 * 4 * LARGE.width)


def test_available_memory_is_a_number_or_unknown():
    free = available_memory()
    assert free is None or free > 1_000_000


def test_available_memory_in_a_container_counts_files_that_were_read_as_free(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    for name, content in (("memory.max", "90000"), ("memory.current", "85000")):
        (tmp_path / name).write_text(content)
    assert available_memory() == 5000
    (tmp_path / "memory.stat").write_text("anon 5000\ninactive_file 80000\nactive_file 10\n")
    assert available_memory() == 85_000
    (tmp_path / "memory.max").write_text("max")
    assert (available_memory() or 10**9) > 1_000_000


def test_small_towers_run_side_by_side():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert choose_passes(10_000_000, CPU) == 2
        assert choose_passes(300_000_000, CPU) == 1
        with divided_threads(2):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_passes_side_by_side_give_the_same_run(detector, pictures, tmp_path, monkeypatch):
    detector.batch_size = 2
    one = predict_run(detector, [pictures], tmp_path / "one")
    monkeypatch.setattr(Detector, "passes", property(lambda self: 3))
    three = predict_run(detector, [pictures], tmp_path / "three")
    assert [(row.path, row.status, round(row.score or 0, 6)) for row in one.rows] == [
        (row.path, row.status, round(row.score or 0, 6)) for row in three.rows
    ]
    for row in one.ok:
        assert (tmp_path / "one" / row.map).read_bytes() == (tmp_path / "three" / row.map).read_bytes()


def test_an_interruption_keeps_what_passes_side_by_side_have_judged(detector, pictures, tmp_path, monkeypatch):
    detector.batch_size = 2
    monkeypatch.setattr(Detector, "passes", property(lambda self: 3))

    def stop(progress):
        if progress.done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_run(detector, [pictures], tmp_path / "run", progress=stop)
    again = predict_run(detector, [pictures], tmp_path / "run", resume=True)
    assert again.skipped >= 4
    assert len(again.ok) == len(predict_run(detector, [pictures], tmp_path / "plain").ok)
