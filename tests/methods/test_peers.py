"""Images compared with others of their kind: the distances, what they are worth, and what a method makes of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from headclip.errors import InputError
from headclip.methods import create_method, list_methods
from headclip.methods.base import method_class
from headclip.methods.peers import LEAST_SPREAD, MOST, MOST_OF_PATCH, NEAREST_SHARE, PeerMemory
from tiny_clip import make_backbone, make_config

close = torch.testing.assert_close


def images(count: int, seed: int = 0, patches: int = 12, width: int = 8) -> list[torch.Tensor]:
    """Images of one kind: the same patches in another order, each a little different."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randn(patches, width, generator=generator)
    noise = [0.15 * torch.randn(patches, width, generator=generator) for _ in range(count)]
    return [kinds[torch.randperm(patches, generator=generator)] + one for one in noise]


def by_hand(image: torch.Tensor, others: list[torch.Tensor], usual: list[torch.Tensor]) -> list[tuple[float, float]]:
    """The logarithm of each patch's distance and the mean of what is usual for its likes, by the docstring's words."""
    found = []
    for patch in F.normalize(image, dim=-1):
        each = []
        for other, known in zip(others, usual, strict=True):
            distances = (patch - F.normalize(other, dim=-1)).norm(dim=-1)
            each.append((float(distances.min()), float(known[distances.argmin()])))
        nearest = sorted(each)[: max(1, int(NEAREST_SHARE * len(others)))]
        found.append((math.log(sum(d for d, _ in nearest) / len(nearest)), sum(u for _, u in nearest) / len(nearest)))
    return found


def usual_of(peers: list[torch.Tensor]) -> list[torch.Tensor]:
    """What each patch of each peer is from its likes in the others."""
    nothing = [torch.zeros(len(peer)) for peer in peers]
    return [torch.tensor(by_hand(peer, peers[:i] + peers[i + 1 :], nothing[1:]))[:, 0] for i, peer in enumerate(peers)]


def test_factors_are_those_of_the_definition():
    peers, (stranger,) = images(7), images(1, seed=3)
    memory = PeerMemory(peers, weight=0.5)
    usual = usual_of(peers)
    among = torch.tensor(
        [by_hand(peer, peers[:i] + peers[i + 1 :], usual[:i] + usual[i + 1 :]) for i, peer in enumerate(peers)]
    )
    logs, relative = among[..., 0], among[..., 0] - among[..., 1]
    alike = 0.5 * (1 - math.exp(logs.mean()))
    assert min(logs.std(), relative.std()) > LEAST_SPREAD
    image_power, patch_power = (alike / float(part.std(correction=0)) for part in (logs, relative))
    found = torch.tensor(by_hand(stranger, peers, usual))
    expected = patch_power * (found[:, 0] - found[:, 1] - relative.mean())
    patches, image = memory.log_factors(stranger[None])
    close(patches[0], MOST_OF_PATCH * torch.tanh(expected / MOST_OF_PATCH), rtol=1e-3, atol=1e-3)
    tops = (image_power * (logs - logs.mean())).amax(dim=1)  # one patch is more than the top 2 %
    top = image_power * (found[:, 0].max() - logs.mean()) - tops.mean()
    close(image[0], top.clamp(-MOST, MOST), rtol=1e-3, atol=1e-3)


def test_an_image_is_not_compared_with_itself_nor_with_its_copies():
    peers = images(6)
    usual = usual_of(peers)
    found = torch.tensor(by_hand(peers[2], peers[:2] + peers[3:], usual[:2] + usual[3:]))
    for memory in (PeerMemory(peers), PeerMemory([*peers, peers[2].clone()])):
        here = memory.log_factors(peers[2][None])
        logs = here[1] / memory.image_power + memory.image_centre + memory.top_centre / memory.image_power
        close(float(logs[0]), float(found[:, 0].max()), rtol=1e-3, atol=1e-3)
    relative = PeerMemory(peers).log_factors(peers[2][None])[0][0]
    memory = PeerMemory(peers)
    expected = memory.patch_power * (found[:, 0] - found[:, 1] - memory.patch_centre)
    close(relative, MOST_OF_PATCH * torch.tanh(expected / MOST_OF_PATCH), rtol=1e-3, atol=1e-3)


def test_what_varies_anyway_may_be_farther_from_its_like():
    """Half of the patches are alike to a hair, half of them roughly; a difference in the former counts for more."""
    generator = torch.Generator().manual_seed(7)
    kinds = torch.randn(16, 32, generator=generator)
    noise = torch.cat([torch.full((8, 1), 0.02), torch.full((8, 1), 0.3)])
    peers = [kinds + noise * torch.randn(16, 32, generator=generator) for _ in range(9)]
    judged = kinds + noise * torch.randn(16, 32, generator=generator)
    usual = PeerMemory(peers).log_factors(judged[None])[0][0]
    assert abs(usual[:8].mean() - usual[8:].mean()) < 1.0
    judged[2] += 0.3 * torch.randn(32, generator=generator)
    assert int(PeerMemory(peers).log_factors(judged[None])[0][0].argmax()) == 2


def test_what_no_other_image_has_stands_out():
    peers = images(8)
    faulty = peers[0].clone()
    faulty[5] = torch.randn(8, generator=torch.Generator().manual_seed(99))
    patches, image = PeerMemory(peers[1:]).log_factors(torch.stack([faulty, peers[0]]))
    assert int(patches[0].argmax()) == 5
    assert patches[0, 5] > 1.0
    assert image[0] > image[1] + 1.0


def test_images_with_nothing_in_common_are_judged_as_without_peers():
    generator = torch.Generator().manual_seed(1)
    strangers = [torch.randn(12, 64, generator=generator) for _ in range(6)]  # about a right angle apart
    memory = PeerMemory(strangers)
    assert memory.patch_power == memory.image_power == 0.0
    assert all(not part.any() for part in memory.log_factors(torch.randn(2, 12, 64, generator=generator)))


def test_copies_alone_change_nothing():
    (image,) = images(1)
    patches, whole = PeerMemory([image, image.clone(), image.clone()]).log_factors(image[None])
    assert not patches.any()
    assert not whole.any()


def test_images_of_other_sizes_and_many_patches(monkeypatch):
    large, small = images(4, patches=30), images(3, seed=2, patches=9)
    memory = PeerMemory([*large, *small])
    whole = memory.log_factors(large[0][None])
    assert whole[0].shape == (1, 30)
    monkeypatch.setattr("headclip.methods.patch_bank.MAX_PRODUCTS", 200)  # a few rows at a time
    for one, other in zip(memory.log_factors(large[0][None]), whole, strict=True):
        close(one, other, rtol=1e-3, atol=1e-4)  # a root of what is left of a difference


def test_those_left_out_are_as_if_never_given():
    peers, (stranger,) = images(7), images(1, seed=3)
    whole = PeerMemory(peers, weight=0.5)
    for places in ({0}, {3, 5}, {6}):
        for image in (stranger, peers[min(places)], peers[1]):
            left = whole.without(places).log_factors(image[None])
            others = [peer for place, peer in enumerate(peers) if place not in places]
            never = PeerMemory(others, weight=0.5).log_factors(image[None])
            for one, other in zip(left, never, strict=True):
                close(one, other, rtol=1e-4, atol=1e-4)
    assert whole.without([2]).images == 6
    with pytest.raises(InputError, match="1 image"):
        PeerMemory(peers[:2]).without([0])


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_bad_weights_and_too_few_images(weight):
    with pytest.raises(InputError, match="peer weight"):
        PeerMemory(images(3), weight)
    with pytest.raises(InputError, match="at least two"):
        PeerMemory(images(1))


@pytest.mark.parametrize("name", [name for name in list_methods() if method_class(name).takes_peers])
def test_every_method_that_compares(name):
    """Without weight nothing changes; with it, map and both scores do, and forgetting brings the old ones back."""
    method = create_method(name, make_backbone(make_config()))
    generator = torch.Generator().manual_seed(4)
    kind = torch.randn(1, 3, 42, 56, generator=generator)
    pixels = [kind + 0.05 * torch.randn(kind.shape, generator=generator) for _ in range(5)]
    pixels[0][..., 14:28, 14:28] = 3.0
    with torch.no_grad():
        before = method.score_pixels(pixels[0])
        method.set_peers(pixels, weight=0.0)
        same = method.score_pixels(pixels[0])
        method.set_peers(pixels)
        after = method.score_pixels(pixels[0])
        method.set_peers(None)
        forgotten = method.score_pixels(pixels[0])
    assert not any("bank" in key for key in method.state_dict())
    close(same.anomaly_map, before.anomaly_map)
    close(same.score, before.score)
    assert not torch.allclose(after.anomaly_map, before.anomaly_map)
    assert not torch.allclose(after.global_score, before.global_score)
    assert 0 <= after.score <= 1
    assert torch.isfinite(after.anomaly_map).all()
    assert torch.equal(forgotten.anomaly_map, before.anomaly_map)


def test_other_methods_say_which_can_compare():
    method = create_method("winclip", make_backbone(make_config()))
    method.set_peers(None)
    with pytest.raises(InputError, match=r"winclip cannot compare images .* headclip"):
        method.set_peers([torch.zeros(1, 3, 240, 240)] * 2)
