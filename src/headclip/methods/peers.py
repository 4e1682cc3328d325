"""How unlike a patch is to the patches of other images of one kind: unlabelled ones, or some known to be normal.

Mutual scoring, the idea of MuSc (Li et al., ICLR 2024): what is normal in one of many alike images has its like in
most of the others, and what is wrong has not. Here it does not replace what the text says of a patch but weighs it,
as `clip.neighbours` does with the patches of the same image, and by how much depends on the images themselves. That
a distance is held against those which are usual around its likes is the idea of local outlier factors (Breunig et
al., SIGMOD 2000).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.errors import InputError
from headclip.methods.patch_bank import Likes, PatchBank
from headclip.methods.scoring import top_share_mean

NEAREST_SHARE = 0.3
"""Of the other images, those in which a patch finds its like best: some of them may show the same fault (MuSc)."""

TOP_SHARE = 0.02  # of an image's patches, which say how unlike the image is
SAME = 0.02  # a mean distance below it: the image itself, or a copy of it
LEAST_SPREAD = 0.02  # of the logarithms of distances, where images hardly differ
MOST = 8.0  # the largest change of a logarithm of an image's odds
MOST_OF_PATCH = 2.0
"""That of a patch's, towards which it bends: what is twice as unusual is hardly more likely to be wrong."""


@dataclass(frozen=True)
class _Found:
    """What the others have of an image's patches. log: of their distances, (N,); likes: where in the bank, (N, k)."""

    log: Tensor
    likes: Tensor


class PeerMemory(nn.Module):
    """Patch features of some images of one kind, and how unlike these are among themselves.

    A patch's distance to the others is the mean of its distances to the nearest patch in each of the NEAREST_SHARE
    of them where that is smallest. How unlike an image is, its largest ones say, as logarithms; how unlike a patch is,
    its logarithm less the mean of those that its likes themselves have among the remembered images, since what varies
    anyway may lie farther from its like. Both are measured against mean and spread over the remembered images, and
    count the less the farther these are from each other: weight * (1 - typical distance) / spread, so that images
    that have nothing in common are judged as without peers.

    Args:
        images: the features, one (N, D) an image, of any length and number, or a bank of them.
        weight: 0 or more; how much all of it counts.
        without: the places of those that are as if they had never been given.

    Raises:
        InputError: fewer than two images, by which alone nobody can say what differs among normal ones, or a negative
            weight.
    """

    def __init__(
        self, images: Sequence[Tensor] | PatchBank, weight: float = 1.0, *, without: Collection[int] = ()
    ) -> None:
        super().__init__()
        given = len(images.lengths if isinstance(images, PatchBank) else images)
        self._others = [place for place in range(given) if place not in without]
        self.images, self.weight = len(self._others), float(weight)
        if self.images < 2:
            raise InputError(f"{self.images} image(s) to compare with; give at least two")
        if not weight >= 0.0:
            raise InputError(f"peer weight {weight}: choose 0 or more")
        self.bank = images if isinstance(images, PatchBank) else PatchBank(images)
        lengths, among = self.bank.lengths, self.bank.among
        each = {place: self._found(among[place]) for place in self._others}
        found = [one for one in each.values() if one is not None]
        logs = torch.cat([one.log for one in found] or [self.bank.get_buffer("vectors").new_zeros(1)])
        alone = [logs.mean().expand(length) for length in lengths]
        usual = [one.log if (one := each.get(place)) is not None else alone[place] for place in range(given)]
        self.register_buffer("usual", torch.cat(usual), persistent=False)  # (M,)
        alike = self.weight * max(0.0, 1.0 - float(logs.mean().exp()))
        self.image_centre, self.image_power = _scale(logs, alike)
        beyond = torch.cat([self._beyond(one) for one in found] or [logs])
        self.patch_centre, self.patch_power = _scale(beyond, alike)
        tops = [self._unlike(one) for one in found]
        self.top_centre = float(torch.stack(tops).mean()) if tops else 0.0

    def parts(self) -> list[tuple[Tensor, Tensor]]:
        """Of each image its unit vectors, (N, D), and what is usual for its patches, (N,)."""
        buffers = (self.bank.get_buffer("vectors"), self.get_buffer("usual"))
        vectors, usual = (buffer.split(self.bank.lengths) for buffer in buffers)
        return [(vectors[place], usual[place]) for place in self._others]

    def without(self, places: Collection[int]) -> PeerMemory:
        """As if the images at these places had never been given; by what the bank knows already."""
        return PeerMemory(self.bank, self.weight, without=places)

    @torch.no_grad()
    def log_factors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the logarithms of the odds of patches and of images.

        Args:
            features: (B, N, D), any length.

        Returns:
            (B, N) float32 between -MOST_OF_PATCH and MOST_OF_PATCH, and (B,) from -MOST to MOST; 0 for an image of
            which every peer is a copy.
        """
        patches = torch.zeros(features.shape[:2], device=features.device)
        images = torch.zeros(len(features), device=features.device)
        for index, unit in enumerate(F.normalize(features.float(), dim=-1)):
            if (found := self._found(self.bank.likes(unit))) is not None:
                patches[index] = self.patch_power * (self._beyond(found) - self.patch_centre)
                images[index] = self._unlike(found) - self.top_centre
        return MOST_OF_PATCH * (patches / MOST_OF_PATCH).tanh(), images.clamp(-MOST, MOST)

    def _beyond(self, found: _Found) -> Tensor:
        """(N,): by how much a patch's logarithm exceeds those that are usual for its likes."""
        return found.log - self.get_buffer("usual")[found.likes].mean(dim=1)

    def _unlike(self, found: _Found) -> Tensor:
        """(): how unlike the others an image is, by its patches that are most so."""
        return top_share_mean(self.image_power * (found.log - self.image_centre)[None], TOP_SHARE)[0]

    def _found(self, likes: Likes) -> _Found | None:
        """What the others have of an image's patches; None where no peer is another image."""
        distance, place = likes.distance[:, self._others], likes.place[:, self._others]
        others = distance.mean(dim=0) >= SAME
        if not others.any():
            return None
        distance, place = distance[:, others], place[:, others]
        count = max(1, int(NEAREST_SHARE * distance.shape[1]))
        nearest = distance.topk(count, dim=1, largest=False)
        return _Found(nearest.values.mean(dim=1).clamp(min=SAME).log(), place.gather(1, nearest.indices))


def _scale(values: Tensor, alike: float) -> tuple[float, float]:
    """Where values are usual, and by what a difference from there is multiplied."""
    return float(values.mean()), alike / max(float(values.std(correction=0)), LEAST_SPREAD)
