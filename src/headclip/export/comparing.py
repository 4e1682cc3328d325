"""The comparison with reference images inside a graph: their patches are constants of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.export.operators import top_mean
from headclip.methods.patch_bank import between
from headclip.methods.peers import MOST, MOST_OF_PATCH, NEAREST_SHARE, SAME, TOP_SHARE, PeerMemory

_FAR = 4.0  # more than any distance of unit vectors


class ComparisonGraph(nn.Module):
    """`PeerMemory.log_factors` without branches, for any number of images and patches.

    Args:
        fixed: whether every image has the same number of patches.
    """

    def __init__(self, memory: PeerMemory, *, fixed: bool) -> None:
        super().__init__()
        self.fixed, self.images = fixed, memory.images
        self.most = max(1, int(NEAREST_SHARE * self.images))
        self.image_centre, self.image_power = memory.image_centre, memory.image_power
        self.patch_centre, self.patch_power = memory.patch_centre, memory.patch_power
        self.top_centre = memory.top_centre
        for place, (vectors, usual) in enumerate(memory.parts()):
            self.register_buffer(f"vectors_{place}", vectors.clone())
            self.register_buffer(f"usual_{place}", usual.clone())

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) features, any length -> what to add to logarithms of odds: (B, N) of patches, (B,) of images."""
        unit = F.normalize(features, dim=-1)
        distances, usual = [], []
        for place in range(self.images):
            vectors = self.get_buffer(f"vectors_{place}")
            likes = (unit @ vectors.T).argmax(dim=-1)  # (B, N)
            distances.append(between(unit, vectors[likes]))
            usual.append(self.get_buffer(f"usual_{place}")[likes])
        distance, known = torch.stack(distances, dim=-1), torch.stack(usual, dim=-1)  # (B, N, K)
        others = distance.mean(dim=1, keepdim=True) >= SAME  # (B, 1, K): not the image itself
        count = others.sum(dim=-1, keepdim=True)  # (B, 1, 1)
        nearest, places = distance.where(others, torch.full_like(distance, _FAR)).topk(self.most, dim=-1, largest=False)
        share = torch.tensor(NEAREST_SHARE, dtype=torch.float64)
        wanted = torch.floor(count.double() * share).long().clamp(min=1)
        counted = (torch.arange(self.most) < wanted).float()  # (B, 1, most)
        log = ((nearest * counted).sum(dim=-1) / wanted[..., 0]).clamp(min=SAME).log()  # (B, N)
        beyond = log - (known.gather(-1, places) * counted).sum(dim=-1) / wanted[..., 0]
        patches = self.patch_power * (beyond - self.patch_centre)
        unlike = self.image_power * (log - self.image_centre)
        images = top_mean(unlike, TOP_SHARE, fixed=self.fixed) - self.top_centre
        other = (count[:, :, 0] > 0).float()  # (B, 1): 0 where all are copies of the image
        return MOST_OF_PATCH * (other * patches / MOST_OF_PATCH).tanh(), (other[:, 0] * images).clamp(-MOST, MOST)
