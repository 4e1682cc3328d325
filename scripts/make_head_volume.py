"""Make the head that the renderer cuts into slices, out of the Debian package mricron-data.

    apt-get download mricron-data
    python scripts/make_head_volume.py mricron-data_*.deb src/headclip/data/synthetic/volumes/head.npz

The package holds Colin27, the average of 27 scans of one head, and the brain alone. What is kept: T1 in steps of 2 of
255, and for each cubic millimetre whether it is air, soft tissue, bone or inside the skull. Where the skull ends is
found by closing the brain's furrows; bone is what is dark between there and the scalp. Needs dpkg-deb and
nibabel.
"""

from __future__ import annotations

import argparse
import io
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headclip.data.synthetic.head_volume import AIR, BONE, INSIDE, SOFT
from headclip.files import write_atomically

HEAD, BRAIN = "ch2.nii.gz", "ch2bet.nii.gz"
TISSUE, DARK, HALF = 28, 42, 0.5  # T1 levels above which something is, and below which bone is


def main() -> None:
    """Write the volume."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="mricron-data as .deb")
    parser.add_argument("out", type=Path, help=".npz")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "--extract", options.package, folder], check=True)
        head, brain = (torch.from_numpy(voxels(Path(folder), name)).float()[None, None] for name in (HEAD, BRAIN))
    kinds = regions(head, brain > 0)
    level = np.where(kinds == AIR, 0, head[0, 0].numpy().astype(np.uint8))
    halved = (level.astype(np.int64) + 1) // 2 * 2
    packed = io.BytesIO()
    np.savez_compressed(packed, t1=halved.clip(0, 255).astype(np.uint8), regions=kinds)
    write_atomically(options.out, packed.getvalue())


def voxels(folder: Path, name: str) -> np.ndarray:
    """One volume below a folder, (D, H, W) uint8 from below, behind and the left."""
    if not (found := next(folder.rglob(name), None)):
        raise SystemExit(f"the package has no {name}: give mricron-data as Debian packs it.")
    return np.asarray(nibabel.load(found).dataobj).T.copy()


def regions(head: Tensor, brain: Tensor) -> np.ndarray:
    """What each place is: (1, 1, D, H, W) float T1 and bool brain -> (D, H, W) uint8."""
    inside = smooth(closed(brain.float(), 9, 8, room=12)) > HALF
    hull = closed((smooth((head > TISSUE).float()) > HALF).float(), 14, 14, room=20).bool() | inside
    near = grown(inside.float(), 11) > 0
    bone = smooth(((smooth(head) < DARK) & hull & ~inside & near).float()) > 0.45
    kinds = torch.full(head.shape, AIR, dtype=torch.uint8)
    kinds[hull], kinds[hull & bone], kinds[inside] = SOFT, BONE, INSIDE
    return kinds[0, 0].numpy()


def grown(solid: Tensor, reach: int) -> Tensor:
    """(1, 1, D, H, W) of zeros and ones, grown by about `reach` voxels: cubes and crosses in turn make it round."""
    for step in range(reach):
        if step % 2:
            solid = F.max_pool3d(solid, 3, 1, 1)
        else:
            arms = [[1 + 2 * (axis == row) for axis in range(3)] for row in range(3)]
            solid = torch.stack([F.max_pool3d(solid, arm, 1, [n // 2 for n in arm]) for arm in arms]).amax(0)
    return solid


def closed(solid: Tensor, out: int, back: int, room: int) -> Tensor:
    """Grown by `out` and shrunk by `back`, with `room` voxels around the volume meanwhile."""
    wide = grown(F.pad(solid, [room] * 6), out)
    return (1.0 - grown(1.0 - wide, back))[..., room:-room, room:-room, room:-room]


def smooth(field: Tensor) -> Tensor:
    """Averaged with a Gaussian of 1 voxel."""
    kernel = torch.exp(-0.5 * torch.arange(-3, 4).float().square())
    for axis in range(3):
        shape = [7 if one == axis else 1 for one in range(3)]
        field = F.conv3d(field, (kernel / kernel.sum()).view(1, 1, *shape), padding=[n // 2 for n in shape])
    return field


if __name__ == "__main__":
    main()
