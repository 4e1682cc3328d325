"""How unlike a patch is to the patches of other images of one kind, none of which has a label.

Mutual scoring, the idea of MuSc (Li et al., ICLR 2024): what is normal in one of many alike images has its like in
most of the others, and what is wrong has not. Here it does not replace what the text says of a patch but weighs it,
as `clip.neighbours` does with the patches of the same image, and by how much depends on the images themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

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


class PeerMemory(nn.Module):
    """Patch features of some images of one kind, and how unlike these are among themselves.

    A patch's distance to the others is the mean of its distances to the nearest patch in each of the NEAREST_SHARE
    of them where that is smallest. Its logarithm is measured against mean and spread over the remembered images, and
    counts the less the farther these are from each other: weight * (1 - typical distance) / spread, so that images
    that have nothing in common are judged as without peers.

    Args:
        features: one (N, D) an image, of any length and number.
        weight: 0 or more; how much all of it counts.

    Raises:
        InputError: fewer than two images, or a negative weight.
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
        among = [self._log_distance(image) for image in unit.split(self._lengths)]
        logs = torch.cat([image for image in among if image is not None] or [unit.new_zeros(1)])
        self.centre = float(logs.mean())
        spread = max(float(logs.std(correction=0)), LEAST_SPREAD)
        self.power = self.weight * max(0.0, 1.0 - float(logs.mean().exp())) / spread
        tops = [self._top(self.power * (image - self.centre)) for image in among if image is not None]
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
            log = self._log_distance(unit)
            if log is not None:
                patches[index] = self.power * (log - self.centre)
                images[index] = self._top(patches[index]) - self.top_centre
        return patches.clamp(-MOST, MOST), images.clamp(-MOST, MOST)

    def _log_distance(self, unit: Tensor) -> Tensor | None:
        """(N, D) unit vectors of one image -> (N,) logarithms of distances; None where no peer is another image."""
        rows = max(1, MAX_PRODUCTS // len(self.get_buffer("bank")))
        closest = torch.cat([self._closest(part) for part in unit.split(rows)])  # (N, K) cosines
        distance = (2 - 2 * closest).clamp(min=0).sqrt()
        distance = distance[:, distance.mean(dim=0) >= SAME]
        if not distance.shape[1]:
            return None
        count = max(1, int(NEAREST_SHARE * distance.shape[1]))
        nearest = distance.topk(count, dim=1, largest=False).values.mean(dim=1)
        return nearest.clamp(min=SAME).log()

    def _closest(self, unit: Tensor) -> Tensor:
        """(n, K): the largest cosine with a patch of each peer."""
        cosines = (unit @ self.get_buffer("bank").T).split(self._lengths, dim=1)
        return torch.stack([image.amax(dim=1) for image in cosines], dim=1)

    @staticmethod
    def _top(values: Tensor) -> Tensor:
        """The mean of the highest TOP_SHARE of an image's (N,) values."""
        return values.topk(max(1, int(TOP_SHARE * len(values)))).values.mean()
