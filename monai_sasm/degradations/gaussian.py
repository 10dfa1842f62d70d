"""Additive Gaussian noise with mean and standard deviation, even or varying over the image.

``y = x + mean + sigma(p) * n``, with ``n ~ N(0, 1)`` independent per pixel and channel. Unclipped noise is the
protocol of DnCNN and FFDNet (Zhang et al. 2017, 2018); clipping to the display range models a stored photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from monai_sasm.degradations.draws import draw_seed, uniform
from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class GaussianNoiseParams:
    """One draw of :class:`GaussianNoise`.

    Args:
        sigma: ``(B, 1, H, W)``, standard deviation per pixel, image unit.
        mean: ``(B, 1, 1, 1)``, offset added to all pixels that get noise, image unit.
        seed: seed of the noise field.
    """

    sigma: NoiseMap
    mean: torch.Tensor
    seed: int

    @property
    def mask(self) -> NoiseMap:
        """1 where noise is added, 0 elsewhere, ``(B, 1, H, W)``."""
        return ((self.sigma > 0) | (self.mean != 0)).float()


class GaussianNoise:
    """White Gaussian noise with randomly drawn strength.

    Args:
        sigma: range of the standard deviation in image units ([0, 1] for photos); larger is noisier.
        mean: range of the mean, same unit.
        uneven: probability that sigma varies smoothly over the image, between two values of the range.
        clip: clip the result to [0, 1], as an 8-bit file would.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.gaussian import GaussianNoise
        >>> noise = GaussianNoise(sigma=(0.1, 0.1))
        >>> params = noise.draw((1, 3, 64, 64), torch.Generator().manual_seed(0))
        >>> noisy = noise.apply(torch.full((1, 3, 64, 64), 0.5), params)
    """

    def __init__(
        self,
        sigma: tuple[float, float] = (0.0, 55 / 255),
        mean: tuple[float, float] = (0.0, 0.0),
        uneven: float = 0.0,
        clip: bool = False,
    ) -> None:
        if not 0 <= sigma[0] <= sigma[1]:
            raise ValueError(f"sigma must be an increasing range of non-negative numbers, got {sigma}")
        if mean[0] > mean[1]:
            raise ValueError(f"mean must be an increasing range, got {mean}")
        if not 0 <= uneven <= 1:
            raise ValueError(f"uneven is a probability in [0, 1], got {uneven}")
        self.sigma, self.mean, self.uneven, self.clip = tuple(sigma), tuple(mean), uneven, clip

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> GaussianNoiseParams:
        """Draw strength, mean and seed for a batch ``(B, C, H, W)``."""
        batch, _, height, width = shape
        # (B, 1, 4, 4) grid of sigmas, of which even images use one value everywhere
        grid = uniform(self.sigma, torch.rand(batch, 1, 4, 4, generator=generator))
        even = torch.rand(batch, 1, 1, 1, generator=generator) >= self.uneven
        grid = torch.where(even, grid[..., :1, :1], grid)
        sigma = F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=True)
        mean = uniform(self.mean, torch.rand(batch, 1, 1, 1, generator=generator))
        seed = draw_seed(generator)
        return GaussianNoiseParams(sigma=sigma, mean=mean, seed=seed)

    def apply(self, clean: ImageBatch, params: GaussianNoiseParams) -> ImageBatch:
        """Add the drawn noise to ``clean`` ``(B, C, H, W)``; zero sigma and mean return it unchanged."""
        generator = torch.Generator().manual_seed(params.seed)
        normal = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = clean + params.mean.to(clean) + params.sigma.to(clean) * normal
        return noisy.clamp(0, 1) if self.clip else noisy
