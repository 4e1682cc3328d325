"""The queue before the model: batches, bounds, failures, and an end that loses nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from headclip.web.batching import Batcher, BatchReport, ModelError, QueueFullError, StoppingError
from inference.fake_detector import FakeDetector


def image(height=16, width=16, value=100):
    return np.full((height, width, 3), value, np.uint8)


class Gate(FakeDetector):
    """Holds every batch until it is opened, so that a queue can be filled for certain."""

    def __init__(self, **options):
        super().__init__(**options)
        self.open = threading.Event()
        self.entered = threading.Event()

    def predict_arrays(self, images, /):
        self.entered.set()
        assert self.open.wait(20)
        return super().predict_arrays(images)


@pytest.fixture
def gate():
    detector = Gate(batch_size=4)
    batcher = Batcher(detector, queue=6, queue_pixels=10_000)
    yield detector, batcher
    detector.open.set()
    batcher.close()


def test_what_waits_is_judged_together(gate):
    detector, batcher = gate
    first = batcher.submit([image()])
    assert detector.entered.wait(5)
    rest = [batcher.submit([image(value=value)])[0] for value in range(5)]
    detector.open.set()
    scores = [future.result(5).score for future in [*first, *rest]]
    assert np.allclose(scores, [value / 255 for value in (100, 0, 1, 2, 3, 4)])
    assert detector.batches == [1, 4, 1]


def test_a_full_queue_refuses_all_of_a_request_or_nothing(gate):
    detector, batcher = gate
    batcher.submit([image()])
    assert detector.entered.wait(5)
    batcher.submit([image()] * 4)
    with pytest.raises(QueueFullError) as refused:
        batcher.submit([image()] * 3)
    assert refused.value.seconds >= 1
    assert batcher.waiting == 4
    batcher.submit([image()] * 2)
    assert batcher.full


def test_pixels_bound_the_queue_but_one_large_image_is_let_in(gate):
    detector, batcher = gate
    batcher.submit([image()])
    assert detector.entered.wait(5)
    batcher.submit([image(200, 200)])
    with pytest.raises(QueueFullError):
        batcher.submit([image()])


def test_cancelled_images_are_not_judged(gate):
    detector, batcher = gate
    batcher.submit([image()])
    assert detector.entered.wait(5)
    futures = batcher.submit([image()] * 3)
    assert all(future.cancel() for future in futures)
    last = batcher.submit([image(value=9)])[0]
    detector.open.set()
    assert last.result(5).score == pytest.approx(9 / 255)
    assert sum(detector.batches) == 2


def test_the_thread_outlives_a_queue_of_cancelled_images(gate):
    detector, batcher = gate
    batcher.submit([image()])
    assert detector.entered.wait(5)
    batcher.submit([image()])[0].cancel()
    detector.open.set()
    while batcher.waiting:
        threading.Event().wait(0.01)
    assert batcher.submit([image()])[0].result(5).score == pytest.approx(100 / 255)


def test_closing_judges_what_is_in_the_queue(gate):
    detector, batcher = gate
    futures = batcher.submit([image()] * 6)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher.alive:
        threading.Event().wait(0.01)
    with pytest.raises(StoppingError):
        batcher.submit([image()])
    detector.open.set()
    closing.join(10)
    assert [future.result(0).score for future in futures] == pytest.approx([100 / 255] * 6)


class Moody(FakeDetector):
    """Fails on black, and gives nonsense on white pictures."""

    def predict_arrays(self, images, /):
        if any(item.max() == 0 for item in images):
            raise RuntimeError("/secret/path: a black picture")
        found = super().predict_arrays(images)
        for item, prediction in zip(images, found, strict=True):
            if item.min() == 255:
                prediction.anomaly_map[0, 0] = np.nan
        return found


def test_one_bad_image_does_not_take_the_others_with_it():
    reports: list[BatchReport] = []
    batcher = Batcher(Moody(batch_size=8), queue=8, queue_pixels=10**6, report=reports.append)
    futures = batcher.submit([image(value=50), image(value=0), image(value=255), image(value=60)])
    assert futures[0].result(5).score == pytest.approx(50 / 255)
    assert futures[3].result(5).score == pytest.approx(60 / 255)
    with pytest.raises(ModelError) as black:
        futures[1].result(5)
    assert "RuntimeError" in str(black.value)
    assert "/secret" not in str(black.value)
    with pytest.raises(ModelError, match="not numbers"):
        futures[2].result(5)
    batcher.close()
    assert sum(report.images for report in reports) == 4
    assert sum(report.failed for report in reports) == 2


def test_other_work_takes_its_turn(gate):
    detector, batcher = gate
    batcher.submit([image()])
    assert detector.entered.wait(5)
    done = batcher.run(lambda: list(detector.batches))
    after = batcher.submit([image()])[0]
    failed = batcher.run(lambda: 1 / 0)
    detector.open.set()
    assert done.result(5) == [1]
    assert after.result(5)
    with pytest.raises(ZeroDivisionError):
        failed.result(5)
