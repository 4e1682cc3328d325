"""What benchmarks/inference.py runs: towers, a stand-in for the official AnomalyCLIP, their costs and the ceilings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional as F

from headclip.clip.blocks import Block
from headclip.clip.config import ClipConfig, VisionConfig
from headclip.clip.hardware import has_packed_products
from headclip.clip.packed import PackedLinear, pack_tower, unpack_tower
from headclip.clip.quantise import quantise_tower
from headclip.clip.vision import VisionRequest, VisionTower
from headclip.methods.headclip import proportional_csa
from headclip.methods.scoring import grid_to_map, similarity

Run = Callable[[Tensor], Any]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}
TOWERS = ("all tokens", "class token", "dual")


@torch.no_grad()
def fill(module: nn.Module) -> nn.Module:
    """Weights of a size that keeps activations sound: 0.02 times normal noise, norms at one, biases at zero."""
    torch.manual_seed(0)
    for name, value in module.named_parameters():
        if value.dim() > 1:
            value.normal_(0.0, 0.02)
        elif name.endswith("bias"):
            value.zero_()
        else:
            value.fill_(1.0)
    return module.requires_grad_(False).eval()


def random_tower(config: ClipConfig, precision: str) -> VisionTower:
    """Our tower with random weights; nothing but the tower is built."""
    tower = VisionTower(config.vision, config.embed_dim)
    fill(tower)
    return at_precision(tower, precision)


def at_precision(tower: VisionTower, precision: str) -> VisionTower:
    """As a detector has it. int8: the layers of the blocks in 8 bits, the rest in bf16."""
    if precision == "int8":
        return quantise_tower(tower, DTYPES[precision])
    return pack_tower(unpack_tower(tower).to(DTYPES[precision]))


def ours(tower: VisionTower, kind: str, size: int, embed_dim: int) -> Run:
    """One of TOWERS: a plain pass for all tokens (as `transformers` gives them) or for the class token alone, or
    HeadCLIP's dual stream with head weights, its anomaly map included."""
    config = tower.config
    if kind != "dual":
        request = VisionRequest(taps=(config.layers,)) if kind == "all tokens" else VisionRequest()
        return lambda pixels: tower(pixels, request)
    first, last = proportional_csa(config.layers)
    request = VisionRequest(csa=(first, last), taps=(last,))
    weights = torch.linspace(0.5, 1.5, (last - first + 1) * config.heads).view(-1, config.heads)
    text = F.normalize(torch.randn(2, embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)

    def run(pixels: Tensor) -> Tensor:
        tokens = tower(pixels, request, weights)
        local = tower.project(tokens.local[last][:, 1:]).float()
        abnormal = similarity(local, text)[..., 1].unflatten(1, tokens.grid)
        return grid_to_map(abnormal, (size, size), 4.0)

    return run


def transformers_tower(vision: VisionConfig, size: int, precision: str) -> Run | None:
    """`CLIPVisionModel` of the same shape with its fused attention, or None where transformers is not installed."""
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModel
    except ImportError:
        return None
    config = CLIPVisionConfig(
        hidden_size=vision.width,
        intermediate_size=int(vision.width * vision.mlp_ratio),
        num_hidden_layers=vision.layers,
        num_attention_heads=vision.heads,
        patch_size=vision.patch_size,
        image_size=size,
        attn_implementation="sdpa",
    )
    model = fill(CLIPVisionModel(config)).to(DTYPES[precision])
    return lambda pixels: model(pixel_values=pixels)


class AnomalyClipStandIn:
    """The work that the official AnomalyCLIP does for an image, in the way that it does it; not its code.

    From layer 6 of 24 on, each layer computes the global attention and the value-value attention one after the other
    as products with the whole matrix of weights in memory, and projects both; the local stream goes on to the last
    layer. The layers below use PyTorch's fused attention. Map: similarity, bilinear upsampling, SciPy's Gaussian on
    one image at a time (sigma 4). Always fp32.
    """

    def __init__(self, tower: VisionTower, size: int, embed_dim: int) -> None:
        self.tower, self.size = tower, size
        self.first = tower.config.layers * 5 // 24 + 1
        self.text = F.normalize(torch.randn(2, embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)

    def __call__(self, pixels: Tensor) -> Tensor:
        x, grid = self.tower.embed(pixels)
        local = x
        for layer, block in enumerate(self.tower.blocks, start=1):
            if layer < self.first:
                x = local = block(x)
                continue
            plain, consistent = self.doubled(block, x)
            local = local + consistent
            x = block.add_mlp(x + plain)
        features = self.tower.project(local)[:, 1:]
        abnormal = similarity(features, self.text)[..., 1].unflatten(1, grid)
        maps = F.interpolate(abnormal[:, None], (self.size, self.size), mode="bilinear", align_corners=False)[:, 0]
        return torch.stack([torch.from_numpy(gaussian_filter(one.numpy(), sigma=4)) for one in maps])

    @staticmethod
    def doubled(block: Block, x: Tensor) -> tuple[Tensor, Tensor]:
        attention = block.attn
        q, k, v = attention.project(block.ln_1(x))
        scale = q.shape[-1] ** -0.5
        plain = (q @ k.transpose(-2, -1) * scale).softmax(dim=-1)  # (B, heads, N, N)
        consistent = (v @ v.transpose(-2, -1) * scale).softmax(dim=-1)
        return attention.out(attention.merge(plain @ v)), attention.out(attention.merge(consistent @ v))


def flops(vision: VisionConfig, size: int, kind: str) -> float:
    """Floating-point operations (two for each multiply-add) of the matrix products for one image, by arithmetic."""
    width, hidden = vision.width, int(vision.width * vision.mlp_ratio)
    grid = size // vision.patch_size
    tokens = grid * grid + 1
    attention = 4 * tokens * tokens * width
    block = 2 * tokens * (4 * width * width + 2 * width * hidden) + attention
    embedding = 2 * grid * grid * 3 * vision.patch_size**2 * width
    total = float(embedding + vision.layers * block)
    if kind in ("class token", "dual"):  # the last layer: no queries, output projection and MLP but one token's
        others = tokens - 1
        total -= 2 * others * (2 * width * width + 2 * width * hidden) + 4 * others * tokens * width
    if kind in ("dual", "stand-in"):
        first, last = (
            proportional_csa(vision.layers) if kind == "dual" else (vision.layers * 5 // 24 + 1, vision.layers)
        )
        total += (last - first + 1) * (attention + 2 * tokens * width * width)
    return total


def ceiling(precision: str, clock: Callable[[], float], side: int, repeats: int = 3) -> tuple[float, float]:
    """The best of a few large square products in this precision, in operations a second: by PyTorch's product, and by
    whatever is quickest, which may be the product with packed weights."""
    a = torch.ones(side, side, dtype=torch.int8 if precision == "int8" else DTYPES[precision])
    ways: list[Callable[[], Tensor]] = [lambda: torch._int_mm(a, a) if precision == "int8" else torch.mm(a, a)]
    if precision != "int8" and has_packed_products():
        linear = nn.Linear(side, side, device="meta")
        linear.weight, linear.bias = nn.Parameter(a, False), nn.Parameter(torch.zeros_like(a[0]), False)
        packed = PackedLinear(linear)
        ways.append(lambda: packed(a))
    rates = []
    for multiply in ways:
        multiply()
        best = float("inf")
        for _ in range(repeats):
            started = clock()
            multiply()
            best = min(best, clock() - started)
        rates.append(2 * side**3 / best)
    return rates[0], max(rates)


def clock_of(name: str) -> Callable[[], float]:
    """ "cpu": CPU seconds of this process; "wall": seconds that passed."""
    return time.process_time if name == "cpu" else time.perf_counter


def memory(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since the last `forget_peak`. 0 where Linux does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


def forget_peak() -> None:
    """Let VmHWM start again from what is held now; without the right to do so the whole life counts."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
