"""ResidualUNet: a pixel-unshuffled encoder-decoder of plain 3x3 residual blocks, told the noise level per pixel.

The layout follows Ronneberger et al. 2015 (encoder, decoder, skips), the residual blocks without normalisation EDSR
(Lim et al. 2017), the noise map FFDNet (Zhang et al. 2018): one set of weights serves all noise levels and, since the
map is spatial, all regions of an image. The first step halves the resolution losslessly by pixel-unshuffle, which
costs a CPU a quarter of the work of full-resolution convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.experts.consistency import Guard, apply_guard
from monai_sasm.experts.widening import widened
from monai_sasm.functional.neighbours import fit_neighbours
from monai_sasm.functional.recorded import Recorded
from monai_sasm.functional.tiling import pad_to_multiple
from monai_sasm.types import ImageBatch, NoiseMap

UNSHUFFLE = 2  # pixels of each axis folded into channels before the first convolution


class ResidualUNet(Recorded):
    """Predicts the correction to add to the image.

    Args:
        image_channels: 1 for CT and MR, 3 for photos.
        channels: width of each level, finest first; its length is the number of levels.
        blocks: residual blocks per level, on the way down and again on the way up.
        noise_estimator: image -> noise map; makes the network noise-conditioned (one extra input channel). Called
            only when no map is given. ``None`` builds a network without noise input.
        zero_init: start as the identity, by zeroing the last convolution. Needed where most pixels need no change
            (raindrops): plain L1 training then does not settle on returning the input of a random start.
        guard: puts measured data back into the result, see :mod:`monai_sasm.experts.consistency`.
        neighbours: slices seen on each side of the one to be restored, see :mod:`monai_sasm.functional.neighbours`.
        conditions: channels that follow those of the image, seen but not restored; only without neighbours.

    Example:
        >>> import torch
        >>> from monai_sasm.experts.unet import ResidualUNet
        >>> ResidualUNet(image_channels=3)(torch.rand(1, 3, 50, 70)).shape
        torch.Size([1, 3, 50, 70])
    """

    def __init__(
        self,
        image_channels: int = 1,
        channels: Sequence[int] = (32, 64, 96, 128),
        blocks: int = 2,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
        zero_init: bool = False,
        guard: Guard | None = None,
        neighbours: int = 0,
        conditions: int = 0,
    ) -> None:
        super().__init__()
        if len(channels) < 2 or min(channels) < 1 or blocks < 1 or min(neighbours, conditions) < 0:
            raise ValueError(
                "a U-Net needs at least 2 levels and 1 block, neighbours and conditions cannot be negative, "
                f"got channels={channels}, blocks={blocks}, neighbours={neighbours}, conditions={conditions}"
            )
        if neighbours and conditions:
            raise ValueError("a U-Net takes neighbours or conditions, not both")
        self.noise_estimator, self.guard = noise_estimator, guard
        self.image_channels, self.neighbours, self.conditions = image_channels, neighbours, conditions
        self.multiple = UNSHUFFLE * 2 ** (len(channels) - 1)
        inputs = image_channels * (2 * neighbours + 1) + (noise_estimator is not None) + conditions
        self.head = nn.Conv2d(inputs * UNSHUFFLE**2, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList(_level(width, blocks) for width in channels)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(channels))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in pairwise(channels))
        self.decoder = nn.ModuleList(_level(width, blocks) for width in channels[:-1])
        self.tail = nn.Conv2d(channels[0], image_channels * UNSHUFFLE**2, 3, padding=1)
        if zero_init:
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(cast(Tensor, self.tail.bias))

    def adopted(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``state``, of a network that is narrower or has no neighbours, for this one: both give the same at first.

        Channels that ``state`` lacks keep the values that they were made with, and what they feed into its own begins
        at zero, see :func:`~monai_sasm.experts.widening.widened`. Of a network without neighbours the weights of the
        image go to the middle slice of the slab, those of the noise map behind its last one.
        """
        bias = state.get("tail.bias")
        if bias is None or bias.shape != cast(Tensor, self.tail.bias).shape:  # of images with other channels
            return dict(state)
        return widened(self._with_neighbours(state), self.state_dict(), transposed="up.")

    def _with_neighbours(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        head = state.get("head.weight")
        own, around = self.head.weight, self.neighbours * self.image_channels * UNSHUFFLE**2
        if not self.neighbours or head is None or own.shape[1] - head.shape[1] != 2 * around:
            return state
        middle = self.image_channels * UNSHUFFLE**2
        wide = head.new_zeros(head.shape[0], own.shape[1], *head.shape[2:])
        wide[:, around : around + middle] = head[:, :middle]
        wide[:, 2 * around + middle :] = head[:, middle:]
        return {**state, "head.weight": wide}

    def forward(self, image: ImageBatch, sigma: NoiseMap | None = None) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``; ``sigma`` ``(B, 1, H, W)`` in the same unit is estimated if missing.

        A network with ``neighbours`` is given slabs ``(B, (2 n + 1) C, H, W)`` where there are any; one with
        ``conditions`` is given ``(B, C + conditions, H, W)``.
        """
        height, width = image.shape[-2:]
        image, seen = image.split([image.shape[1] - self.conditions, self.conditions], 1)
        x, image = (fit_neighbours(image, count, self.image_channels) for count in (self.neighbours, 0))
        if self.noise_estimator is not None:
            x = torch.cat([x, self.noise_estimator(image) if sigma is None else sigma.to(image)], 1)  # (B, C+1, H, W)
        if self.conditions:
            x = torch.cat([x, seen], 1)  # last, so that a network without them can be widened
        x = self.head(F.pixel_unshuffle(pad_to_multiple(x, self.multiple), UNSHUFFLE))  # (B, c0, H/2, W/2)
        skips = []
        for level, down in zip(self.encoder[:-1], self.down, strict=True):
            skips.append(level(x))
            x = down(skips[-1])  # (B, c_i+1, H/2^(i+2), W/2^(i+2))
        x = self.encoder[-1](x)
        for level, up, skip in zip(reversed(self.decoder), reversed(self.up), reversed(skips), strict=True):
            x = level(up(x) + skip)  # (B, c_i, ...)
        correction = F.pixel_shuffle(self.tail(x), UNSHUFFLE)  # (B, C, H, W) padded
        return apply_guard(image + correction[..., :height, :width].to(image.dtype), image, self.guard)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def _level(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(_ResidualBlock(channels) for _ in range(blocks)))
