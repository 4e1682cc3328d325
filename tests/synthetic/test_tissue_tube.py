"""The bowel in three dimensions: what the march finds is where geometry says it is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.tissue_tube import Lump, Tube, march, sampled


def plain_tube(**changes) -> Tube:
    settings = {"bend": (0.0, 0.0), "fold": 0.0, "pitch": 1.0, "thin": 0.2, "sectors": 3, "phases": [0.0] * 8}
    return Tube(**{**settings, "swell": 0.0, **changes})


def ball(centre: tuple[float, float, float], radius: float) -> Lump:
    return Lump(torch.tensor(centre), radius, torch.tensor([0.0, 0.0, 1.0]), 1.0, 0.0, 0.0)


@pytest.mark.parametrize("angle", [0.2, 0.5, 1.0, 1.4])
def test_a_plain_tube_is_hit_where_the_ray_leaves_it(angle):
    around = torch.linspace(0, 2 * math.pi, 9)
    rays = torch.stack(
        [math.sin(angle) * around.cos(), math.sin(angle) * around.sin(), torch.full((9,), math.cos(angle))]
    )
    found = march(plain_tube(), [], 1.0, torch.zeros(3), rays)
    torch.testing.assert_close(found.far, torch.full((9,), 1 / math.sin(angle)), rtol=6e-3, atol=2e-3)
    torch.testing.assert_close(found.facing, torch.full((9,), math.sin(angle)), rtol=2e-2, atol=2e-2)


def test_a_ball_hides_the_wall_behind_it():
    ray = F.normalize(torch.tensor([[0.3], [0.0], [1.0]]), dim=0)
    centre = (ray[:, 0] * 1.5).tolist()
    found = march(plain_tube(), [ball(tuple(centre), 0.2)], 0.01, torch.zeros(3), ray)
    assert float(found.far) == pytest.approx(1.3, abs=5e-3)
    assert float(found.lump) < float(found.wall)
    assert float(found.facing) == pytest.approx(1.0, abs=2e-2)


def test_folds_reach_into_the_tube_and_nothing_lies_outside():
    tube = Tube.drawn(Rng(3))
    tube = plain_tube(fold=0.4, thin=0.2, swell=tube.swell)
    around = torch.rand(3, 4000, generator=torch.Generator().manual_seed(1)) - 0.5
    rays = F.normalize(around + torch.tensor([[0.0], [0.0], [0.6]]), dim=0)
    found = march(tube, [], 1.0, torch.zeros(3), rays)
    reached = found.far < 6
    radius = found.points[:2].norm(dim=0)
    assert float(found.wall[reached].abs().quantile(0.98)) < 0.05
    assert float(radius[reached].min()) < 0.85
    assert float(radius[reached].max()) < 1.0 + 2.2 * tube.swell


def test_textures_are_read_without_a_seam_at_the_mirror():
    texture = torch.rand(16, 16, generator=torch.Generator().manual_seed(2))
    along = torch.linspace(-2.9, 2.9, 7)
    torch.testing.assert_close(
        sampled(texture, 1 - along.abs() % 1, along), sampled(texture, 1 + along.abs() % 1, along)
    )


def test_polyps_stand_out_and_leave_the_rest_alone():
    sizes = {name: [] for name in ("polyp", "large polyp", "polyps")}
    for seed in range(12):
        scene = FAMILIES["bowel"].draw(Rng(seed), 96, 96)
        for name, draw in scene.variants.items():
            changed, mask = draw()
            assert torch.equal(changed[:, ~mask], scene.image[:, ~mask])
            if mask.sum() > 30:
                sizes[name].append(float(mask.float().mean()))
                assert (changed - scene.image).abs()[:, mask].mean() > 0.005
    assert min(len(found) for found in sizes.values()) >= 6
    assert sum(sizes["large polyp"]) / len(sizes["large polyp"]) > 1.5 * sum(sizes["polyp"]) / len(sizes["polyp"])
