"""How unlike a patch is to the patches of other images of one kind: unlabelled ones, or some known to be normal.

Mutual scoring, the idea of MuSc (Li et al., ICLR 2024): what is normal in one of many alike images has its like in
most of the others, and what is wrong has not. Here it does not replace what the text says of a patch but weighs it,
as `clip.neighbours` does with the patches of the same image, and by how much depends on the images themselves. That
a distance is held against those which are usual around its likes is the idea of local outlier factors (Breunig et
al., SIGMOD 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.errors import InputError

NEAREST_SHARE = 0.3
"""Of the other images, those in which a patch finds its like best: some of them may show the same fault (MuSc)."""

TOP_SHARE = 0.02  # of an image's patches, which say how unlike the image is
SAME = 0.02  # a mean distance below it: the image itself, or a copy of it
LEAST_SPREAD = 0.02  # of the logarithms of distances, where images hardly differ
MOST = 8.0  # the largest change of a logarithm of odds
MAX_PRODUCTS = 1 << 24  # cosines held at a time: 64 MB


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
        features: one (N, D) an image, of any length and number.
        weight: 0 or more; how much all of it counts.

    Raises:
        InputError: fewer than two images, by which alone nobody can say what differs among normal ones, or a negative
            weight.
    """

    def __init__(self, features: Sequence[Tensor], weight: float = 1.0) -> None:
        super().__init__()
        if len(features) < 2:
            raise InputError(f"{len(features)} image(s) to compare with; give at least two")
        if not weight >= 0.0:
            raise InputError(f"peer weight {weight}: choose 0 or more")
        self.images, self.weight = len(features), float(weight)
        self._lengths = [len(image) for image in features]
        unit = F.normalize(torch.cat([image.detach().float() for image in features]), dim=-1)  # (M, D)
        self.register_buffer("bank", unit, persistent=False)
        among = [self._compare(image) for image in unit.split(self._lengths)]
        found = [each for each in among if each is not None]
        logs = torch.cat([each.log for each in found] or [unit.new_zeros(1)])
        usual = [logs.mean().expand(n) if f is None else f.log for n, f in zip(self._lengths, among, strict=True)]
        self.register_buffer("usual", torch.cat(usual), persistent=False)  # (M,)
        alike = self.weight * max(0.0, 1.0 - float(logs.mean().exp()))
        self.image_centre, self.image_power = _scale(logs, alike)
        self.patch_centre, self.patch_power = _scale(torch.cat([self._beyond(f) for f in found] or [logs]), alike)
        tops = [self._top(self.image_power * (each.log - self.image_centre)) for each in found]
        self.top_centre = float(torch.stack(tops).mean()) if tops else 0.0

    @torch.no_grad()
    def log_factors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What to add to the logarithms of the odds of patches and of images.

        Args:
            features: (B, N, D), any length.

        Returns:
            (B, N) and (B,) float32 from -MOST to MOST; 0 for an image of which every peer is a copy.
        """
        patches = torch.zeros(features.shape[:2], device=features.device)
        images = torch.zeros(len(features), device=features.device)
        for index, unit in enumerate(F.normalize(features.float(), dim=-1)):
            if (found := self._compare(unit)) is not None:
                patches[index] = self.patch_power * (self._beyond(found) - self.patch_centre)
                images[index] = self._top(self.image_power * (found.log - self.image_centre)) - self.top_centre
        return patches.clamp(-MOST, MOST), images.clamp(-MOST, MOST)

    def _beyond(self, found: _Found) -> Tensor:
        """(N,): by how much a patch's logarithm exceeds those that are usual for its likes."""
        return found.log - self.get_buffer("usual")[found.likes].mean(dim=1)

    def _compare(self, unit: Tensor) -> _Found | None:
        """(N, D) unit vectors of one image -> what the others have of them; None where no peer is another image."""
        rows = max(1, MAX_PRODUCTS // len(self.get_buffer("bank")))
        parts = [self._closest(part) for part in unit.split(rows)]
        cosine, place = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])  # (N, K)
        distance = (2 - 2 * cosine).clamp(min=0).sqrt()
        others = distance.mean(dim=0) >= SAME
        if not others.any():
            return None
        distance, place = distance[:, others], place[:, others]
        count = max(1, int(NEAREST_SHARE * distance.shape[1]))
        nearest = distance.topk(count, dim=1, largest=False)
        return _Found(nearest.values.mean(dim=1).clamp(min=SAME).log(), place.gather(1, nearest.indices))

    def _closest(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """(n, K) each: the largest cosine with a patch of each peer, and that patch's place in the bank."""
        best = [image.max(dim=1) for image in (unit @ self.get_buffer("bank").T).split(self._lengths, dim=1)]
        first = torch.tensor([0, *self._lengths[:-1]], device=unit.device).cumsum(dim=0)
        places = torch.stack([one.indices for one in best], dim=1) + first
        return torch.stack([one.values for one in best], dim=1), places

    @staticmethod
    def _top(values: Tensor) -> Tensor:
        """The mean of the highest TOP_SHARE of an image's (N,) values."""
        return values.topk(max(1, int(TOP_SHARE * len(values)))).values.mean()


def _scale(values: Tensor, alike: float) -> tuple[float, float]:
    """Where values are usual, and by what a difference from there is multiplied."""
    return float(values.mean()), alike / max(float(values.std(correction=0)), LEAST_SPREAD)
