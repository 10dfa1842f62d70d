"""DiT: a transformer on image patches with adaptive layer norm, for diffusion (DiT) and flow matching (SiT) alike.

Peebles & Xie 2023 ("Scalable Diffusion Models with Transformers"): patches become tokens; each block's layer norms are
scaled, shifted and gated by the time embedding, with gates that start at zero (adaLN-zero), so a fresh network is the
identity on its tokens. SiT (Ma et al. 2024) keeps this backbone and changes objective and sampler only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PRESETS = {  # Peebles & Xie 2023, table 1, below it what a CPU trains in an hour; depth, width, heads
    "XL": (28, 1152, 16),
    "L": (24, 1024, 16),
    "B": (12, 768, 12),
    "S": (12, 384, 6),
    "XS": (8, 192, 3),
    "T": (6, 128, 2),
}


class DiT(nn.Module):
    """Predicts noise, sample or velocity, shape of the first ``out_channels`` of its input; called as MONAI's UNet.

    Args:
        in_channels: of the input, conditions included (the low-quality image is concatenated to ``x_t``).
        out_channels: of the prediction.
        preset: a key of :data:`PRESETS`; ``depth``, ``width`` and ``heads`` replace its numbers one by one.
        patch: side of a patch in pixels; "/2" in the paper's names.
        spatial_dims: 2 or 3.
        depth: number of blocks.
        width: channels per token; a multiple of ``heads`` and, for the positions, of ``2 * spatial_dims``.
        heads: attention heads.
        num_class_embeds: number of class labels, if any.

    Example:
        >>> import torch
        >>> from monai_sasm.experts.dit import DiT
        >>> DiT(2, 1, preset="T", patch=4)(torch.rand(1, 2, 30, 50), timesteps=torch.tensor([3])).shape
        torch.Size([1, 1, 30, 50])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        preset: str = "S",
        patch: int = 2,
        spatial_dims: int = 2,
        depth: int | None = None,
        width: int | None = None,
        heads: int | None = None,
        num_class_embeds: int | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        chosen = (depth, width, heads)
        depth, width, heads = (own or default for own, default in zip(chosen, PRESETS[preset], strict=True))
        if width % heads or width % (2 * spatial_dims):
            raise ValueError(f"width {width} must be a multiple of heads {heads} and of {2 * spatial_dims}")
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        self.patch, self.spatial_dims, self.width, self.out_channels = patch, spatial_dims, width, out_channels
        self.embed = convolution(in_channels, width, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(num_class_embeds, width) if num_class_embeds else None
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.head = nn.Linear(width, out_channels * patch**spatial_dims)
        for layer in (self.modulation, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """``x`` ``(B, C_in, *spatial)`` of any size, ``timesteps`` ``(B,)`` -> ``(B, C_out, *spatial)``."""
        if context is not None:
            raise ValueError("DiT has no cross-attention; pass conditions as input channels")
        size = x.shape[2:]
        grid = self.embed(_pad(x, self.patch))  # (B, width, *grid)
        shape = grid.shape[2:]
        tokens = grid.flatten(2).transpose(1, 2) + _positions(shape, self.width, grid)  # (B, N, width)
        about = self.time(sinusoid(timesteps.to(x), self.width).to(x))  # (B, width)
        if self.label is not None and class_labels is not None:
            about = about + self.label(class_labels)
        about = F.silu(about)
        for block in self.blocks:
            tokens = block(tokens, about)
        shift, scale = self.modulation(about)[:, None].chunk(2, -1)
        patches = self.head(self.norm(tokens) * (1 + scale) + shift)  # (B, N, C_out * patch**dims)
        crop = (slice(None), slice(None), *(slice(side) for side in size))
        return self._assemble(patches, shape)[crop]

    def _assemble(self, patches: Tensor, grid: Sequence[int]) -> Tensor:
        """Tokens back to pixels."""
        dims, p = self.spatial_dims, self.patch
        x = patches.view(len(patches), *grid, self.out_channels, *[p] * dims)
        order = [0, 1 + dims]
        for axis in range(dims):
            order += [1 + axis, 2 + dims + axis]
        return x.permute(order).reshape(len(patches), self.out_channels, *(side * p for side in grid))


class _Block(nn.Module):
    """Attention and MLP, each scaled, shifted and gated by the time embedding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first = nn.LayerNorm(width, elementwise_affine=False)
        self.second = nn.LayerNorm(width, elementwise_affine=False)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, about: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(about)[:, None].chunk(6, -1)
        x = x + gate1 * self._attend(self.first(x) * (1 + scale1) + shift1)
        changed: Tensor = x + gate2 * self.mlp(self.second(x) * (1 + scale2) + shift2)
        return changed

    def _attend(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        split = self.query_key_value(x).view(batch, count, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, heads, N, width / heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(attended.transpose(1, 2).reshape(batch, count, width))
        return projected


def sinusoid(position: Tensor, width: int, longest: float = 10000.0) -> Tensor:
    """Sines and cosines of ``position`` ``(N,)`` at wavelengths 2 pi to ``longest * 2 pi``: ``(N, width)``."""
    half = width // 2
    rates = torch.exp(-math.log(longest) * torch.arange(half, device=position.device, dtype=torch.float32) / half)
    angles = position.float()[:, None] * rates
    return F.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, width - 2 * half))


def _positions(grid: Sequence[int], width: int, like: Tensor) -> Tensor:
    """Fixed positions ``(1, N, width)``: the channels are shared out between the axes (even number to each)."""
    share = width // len(grid) // 2 * 2
    axes = [sinusoid(torch.arange(side, device=like.device), share) for side in grid]
    spread = [
        axis.view(*[-1 if k == index else 1 for k in range(len(grid))], share).expand(*grid, share)
        for index, axis in enumerate(axes)
    ]
    joined = torch.cat(spread, -1).reshape(1, -1, share * len(grid))
    return F.pad(joined, (0, width - joined.shape[-1])).to(like)


def _pad(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last rows and columns up to a multiple."""
    sides: list[int] = []
    for side in reversed(x.shape[2:]):
        sides += [0, -side % multiple]
    return F.pad(x, sides, mode="replicate") if any(sides) else x
