"""Counts of many images lie on disk, and give the sums that they give in memory."""

from __future__ import annotations

import numpy as np
import pytest

from headclip.evaluation.bootstrap import pixel_replicates
from headclip.metrics import per_image
from headclip.metrics.per_image import ImageCounts, join, lay_bins
from headclip.metrics.pixel import PixelMetrics


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    masks = [rng.random((6, 7)) > 0.8 if index % 2 else None for index in range(11)]
    return [(rng.random((6, 7)).astype(np.float32), mask) for mask in masks]


def counted(bins, maps) -> ImageCounts:
    counts = ImageCounts(bins)
    for anomaly_map, mask in maps:
        counts.update(anomaly_map, mask)
    return counts


@pytest.mark.parametrize("block", [1, 4, 11])
def test_blocks_on_disk_give_the_same(maps, monkeypatch, block):
    whole = PixelMetrics()
    for anomaly_map, mask in maps:
        whole.update(anomaly_map, mask)
    bins = lay_bins(whole.state, 64)
    in_memory = counted(bins, maps)
    monkeypatch.setattr(per_image, "_BLOCK", block)
    on_disk = join([counted(bins, maps[:5]), counted(bins, maps[5:])])
    assert len(on_disk._rows) < block  # the others are in the file
    assert (on_disk.images, on_disk.has_defect) == (11, in_memory.has_defect)
    draws = np.random.default_rng(1).multinomial(11, np.full(11, 1 / 11), size=30)
    for one, other in zip(on_disk.weighted(draws), in_memory.weighted(draws), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    assert on_disk.weighted(draws)[0].sum() == sum(draws @ [int((m is not None) and m.sum()) for _, m in maps])
    first, second = (pixel_replicates(counts, replicates=20) for counts in (on_disk, in_memory))
    assert first.estimate == pytest.approx(second.estimate)
