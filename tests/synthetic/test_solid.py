"""Solid things in three dimensions: bodies, what a camera sees of them, and what goes wrong with one."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from headclip.data.synthetic.base import Rng
from headclip.data.synthetic.registry import FAMILIES
from headclip.data.synthetic.shapes import Light, pixel_grid
from headclip.data.synthetic.signed_distance import extruded, followed, joined, length, unit, without
from headclip.data.synthetic.solid_shapes import BODIES, Waves, ball, beyond, bore, slit
from headclip.data.synthetic.solid_view import Camera, Lamp, Seen, hollows, march

UP = torch.tensor([0.0, 0.0, 1.0])
STILL = Waves(torch.zeros(1, 3), torch.zeros(1, 1), torch.ones(1, 1))


def points(*rows: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(rows).T


def from_above(height: float, across: float, pixels: int = 41) -> Camera:
    """A camera over (0, 0) that looks straight down; the first of its rays is the upper left one."""
    x, y = pixel_grid(Rng(0), pixels, pixels)
    rays = torch.stack([x, y, torch.zeros_like(x)]).reshape(3, -1) * (across / pixels / height) - UP[:, None]
    axes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return Camera(torch.tensor([0.0, 0.0, height]), F.normalize(rays, dim=0), axes)


def test_rays_that_have_arrived_are_left_alone_and_end_where_all_steps_would_bring_them():
    whole, camera = ball(torch.tensor([0.0, 0.0, 0.5]), 0.5), from_above(4.0, 3.0)
    start, end = torch.full((41 * 41,), 0.5), 4.0 / -camera.rays[2]
    asked = []

    def step(at):
        asked.append(at.shape[1])
        return whole(at)

    found = followed(step, camera.origin, camera.rays, start, (0.0, end), 60)
    far = start
    for _ in range(60):
        far = torch.minimum(far + whole(camera.origin[:, None] + camera.rays * far), end)
    torch.testing.assert_close(found, far, atol=2e-3, rtol=0)
    assert asked[0] == 41 * 41
    assert asked == sorted(asked, reverse=True)
    assert len(asked) < 60 or asked[-1] < 0.2 * asked[0]


def test_lengths_and_units():
    some = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(length(some), some.norm(dim=0))
    torch.testing.assert_close(unit(some), F.normalize(some, dim=0))


@pytest.mark.parametrize("kind", sorted(BODIES))
@pytest.mark.parametrize("seed", range(6))
def test_a_body_fits_in_its_ball_and_its_distance_does_not_outrun_the_way(kind, seed):
    rng = Rng(seed)
    body = BODIES[kind][0](rng)
    here = (rng.rand(3, 20000) - 0.5) * 3.0
    found = body(here)
    assert (found < 0).any()
    assert float(here[:, found < 0].norm(dim=0).max()) < 1.7
    step = 0.02 * F.normalize(rng.randn(3, 20000), dim=0)
    ratio = (body(here + step) - found).abs() / 0.02
    assert float(ratio.quantile(0.97)) < 1.35


def test_an_extruded_disc_is_a_cylinder():
    at = points((0, 0, 2), (3, 0, 0), (0.5, 0, 0), (4, 0, 5))
    flat = at[:2].norm(dim=0) - 1.0
    expected = torch.tensor([1.0, 2.0, -0.5, 5.0])
    torch.testing.assert_close(extruded(flat, at[2], 1.0), expected, atol=1e-3, rtol=0)


def test_what_breaks_a_body_takes_and_adds_where_it_should():
    whole = ball(torch.zeros(3), 1.0)
    top, below, far = points((0, 0, 0.95)), points((0, 0, -0.95)), points((0, 0, 1.1))
    foot = torch.tensor([0.0, 0.0, 1.0])
    for tool in (ball(foot, 0.3), bore(foot, torch.tensor([1.0, 0.0, 0.0]), 0.1), beyond(foot, UP, 0.2, STILL, 0.0)):
        assert float(without(whole, tool, 0.01)(top)) > 0
        assert float(without(whole, tool, 0.01)(below)) == pytest.approx(-0.05, abs=1e-2)
    crack = without(whole, slit(foot, torch.tensor([1.0, 0.0, 0.0]), 0.05, 0.4, STILL, 0.0), 0.001)
    assert float(crack(top)) > 0
    assert float(crack(points((0.2, 0, 0.95)))) < 0
    assert float(joined(whole, ball(foot, 0.3), 0.05)(far)) < 0 < float(whole(far))


def test_a_ball_on_the_table_is_seen_where_it_is_and_shades_what_is_under_it():
    whole = ball(torch.tensor([0.0, 0.0, 0.5]), 0.5)
    camera = from_above(4.0, 3.0)
    seen = march(whole, camera, 1.1, 1.0)
    middle = 41 * 20 + 20
    assert float(seen.far[middle]) == pytest.approx(3.0, abs=1e-2)
    torch.testing.assert_close(seen.normal[:, middle], UP, atol=2e-2, rtol=0)
    expected = math.pi * 0.5**2 * (4.0 / 3.5) ** 2 / 9.0  # its outline, as far as the middle of the ball is
    assert float(seen.body.float().mean()) == pytest.approx(expected, rel=0.08)
    assert torch.equal(seen.points[2, ~seen.body].abs() < 1e-3, torch.ones_like(seen.points[2, ~seen.body], dtype=bool))
    lamp = Lamp.drawn(Rng(1), camera, Light(0.0, 0.0, 1.0, 0.3, 0.0, 10.0))
    lamp.soft, lamp.shadow = 20.0, 1.0
    ground = Seen(
        torch.zeros(2), points((0.3, 0, 0), (2.0, 0, 0)), UP[:, None].expand(3, 2), torch.zeros(2, dtype=bool)
    )
    below, beside = lamp.arrives(whole, ground, 2.0).tolist()
    assert below < 0.1
    assert beside > 0.9
    assert float(hollows(whole, Seen(ground.far, points((0.05, 0, 0), (2, 0, 0)), ground.normal, ground.body))[0]) < 0.7


def test_defects_stand_out_on_the_body_and_leave_the_rest_alone():
    strength: dict[str, list[float]] = {}
    for seed in range(30):
        scene = FAMILIES["solid"].draw(Rng(seed), 96, 96)
        for name, draw in scene.variants.items():
            changed, mask = draw()
            if name != "missing part":  # its edge may be a little wider than its mask
                assert torch.equal(changed[:, ~mask], scene.image[:, ~mask])
            if mask.sum() > 20:
                strength.setdefault(name, []).append(float((changed - scene.image).abs()[:, mask].mean()))
    assert set(strength) == {"dent", "lump", "crack", "drilled hole", "broken piece", "stain", "missing part"}
    for name, found in strength.items():
        assert sorted(found)[len(found) // 2] > 0.015, name


def test_a_missing_part_shows_the_table():
    gone = 0
    for seed in range(40):
        scene = FAMILIES["solid"].draw(Rng(seed), 96, 96)
        if "missing part" in scene.variants:
            _, mask = scene.variants["missing part"]()
            gone += bool((mask & scene.foreground).sum() > 0.4 * mask.sum() > 0)
    assert gone >= 6
