"""RRDBNet, the generator of ESRGAN (Wang et al. 2018): residual-in-residual dense blocks without normalisation.

Restoration happens on the input's own grid (a zero-filled MR slice, a low-dose CT slice), so the x4 upsampling of the
paper is replaced by pixel-unshuffle in front and pixel-shuffle behind, as Real-ESRGAN (Wang et al. 2021) does for x1
and x2: the same number of features at a quarter of the cost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.experts.consistency import Guard, apply_guard
from monai_sasm.functional.recorded import Recorded
from monai_sasm.types import ImageBatch, NoiseMap

SCALE = 0.2  # of every residual (Szegedy et al. 2017): deep stacks without normalisation stay stable
SLOPE = 0.2  # of the leaky ReLU


class RRDBNet(Recorded):
    """Predicts the correction to add to the image.

    Args:
        image_channels: 1 for CT and MR, 3 for photos.
        features: width F; 64 in the paper.
        blocks: residual-in-residual dense blocks; 23 in the paper.
        growth: channels each dense layer adds; 32 in the paper.
        noise_estimator: image -> noise map, one more input channel; ``None`` builds a network without noise input.
        patch: pixels of each axis folded into channels; 1 works at full resolution.
        zero_init: start as the identity, by zeroing the last convolution.
        guard: puts measured data back into the result, see :mod:`monai_sasm.experts.consistency`.

    Example:
        >>> import torch
        >>> from monai_sasm.experts.esrgan import RRDBNet
        >>> RRDBNet(features=16, blocks=1, growth=8)(torch.rand(1, 1, 33, 47)).shape
        torch.Size([1, 1, 33, 47])
    """

    def __init__(
        self,
        image_channels: int = 1,
        features: int = 64,
        blocks: int = 23,
        growth: int = 32,
        patch: int = 2,
        noise_estimator: Callable[[ImageBatch], NoiseMap] | None = None,
        zero_init: bool = False,
        guard: Guard | None = None,
    ) -> None:
        super().__init__()
        if min(image_channels, features, blocks, growth, patch) < 1:
            raise ValueError(f"sizes must be at least 1, got {image_channels, features, blocks, growth, patch}")
        self.patch = self.multiple = patch
        self.noise_estimator, self.guard = noise_estimator, guard
        inputs = image_channels + (noise_estimator is not None)
        self.head = nn.Conv2d(inputs * patch**2, features, 3, padding=1)
        self.body = nn.Sequential(*(_ResidualInResidual(features, growth) for _ in range(blocks)))
        self.join = nn.Conv2d(features, features, 3, padding=1)
        self.tail = nn.Conv2d(features, image_channels * patch**2, 3, padding=1)
        if zero_init:
            for parameter in self.tail.parameters():
                nn.init.zeros_(parameter)

    def forward(self, image: ImageBatch, sigma: NoiseMap | None = None) -> ImageBatch:
        """Restore ``image`` ``(B, C, H, W)``; ``sigma`` ``(B, 1, H, W)`` in the same unit is estimated if missing."""
        height, width = image.shape[-2:]
        seen = image
        if self.noise_estimator is not None:
            seen = torch.cat([image, self.noise_estimator(image) if sigma is None else sigma.to(image)], 1)
        padded = F.pad(seen, (0, -width % self.patch, 0, -height % self.patch), mode="replicate")
        features = self.head(F.pixel_unshuffle(padded, self.patch))
        features = features + self.join(self.body(features))
        correction = F.pixel_shuffle(self.tail(F.leaky_relu(features, SLOPE)), self.patch)
        return apply_guard(image + correction[..., :height, :width].to(image.dtype), image, self.guard)


class _DenseBlock(nn.Module):
    """Five convolutions, each fed with all features before it."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(features + k * growth, growth, 3, padding=1) for k in range(4))
        self.last = nn.Conv2d(features + 4 * growth, features, 3, padding=1)
        for layer in (*self.layers, self.last):  # small start, as in the paper's supplement
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            layer.weight.data.mul_(0.1)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for layer in self.layers:
            known = torch.cat([known, F.leaky_relu(layer(known), SLOPE)], 1)
        return x + SCALE * self.last(known)


class _ResidualInResidual(nn.Module):
    """Three dense blocks inside one more residual connection."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_DenseBlock(features, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + SCALE * self.blocks(x)
