"""Defocus of part of a photo: a disc of confusion, as a lens with a round aperture draws it.

No fault that any expert repairs: photographers defocus backgrounds on purpose, and a gate has to tolerate that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.degradations.draws import uniform
from monai_sasm.degradations.mask import region_weights
from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class DefocusParams:
    """One draw of :class:`Defocus`.

    Args:
        radius: of the disc, pixels, ``(B,)``; below half a pixel the image is in focus.
        region: share of the blurred image, ``(B, 1, H, W)`` in [0, 1].
    """

    radius: Tensor
    region: NoiseMap

    @property
    def sigma(self) -> NoiseMap:
        """No noise: zeros ``(B, 1, H, W)``."""
        return torch.zeros_like(self.region)

    @property
    def mask(self) -> NoiseMap:
        """How far the image is out of focus, ``(B, 1, H, W)`` in [0, 1]."""
        return self.region * (self.radius >= 0.5).to(self.region).view(-1, 1, 1, 1)


class Defocus:
    """Blurs a smooth region of the image with a disc.

    Args:
        radius: range of the disc's radius in pixels.
        probability: share of the images that are out of focus anywhere.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.defocus import Defocus
        >>> defocus = Defocus(radius=(2.0, 8.0))
        >>> params = defocus.draw((1, 3, 64, 64), torch.Generator().manual_seed(0))
        >>> blurred = defocus.apply(torch.rand(1, 3, 64, 64), params)
    """

    def __init__(self, radius: tuple[float, float] = (1.0, 8.0), probability: float = 1.0) -> None:
        if not 0 <= radius[0] <= radius[1]:
            raise ValueError(f"radius must be an increasing range of non-negative numbers, got {radius}")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {probability}")
        self.radius, self.probability = tuple(radius), probability

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> DefocusParams:
        """Draw radius and region for a batch ``(B, C, H, W)``."""
        radius = uniform(self.radius, torch.rand(shape[0], generator=generator))
        blurred = torch.rand(shape[0], generator=generator) < self.probability
        region = region_weights(shape, 2, generator)[:, :1]
        return DefocusParams(radius * blurred, region)

    def apply(self, clean: ImageBatch, params: DefocusParams) -> ImageBatch:
        """Blur ``clean`` ``(B, C, H, W)``; a radius below half a pixel returns it unchanged."""
        blurred = torch.cat([_disc(image[None], float(r)) for image, r in zip(clean, params.radius, strict=True)])
        return clean + params.region.to(clean) * (blurred - clean)


def _disc(image: ImageBatch, radius: float) -> ImageBatch:
    if radius < 0.5:
        return image
    reach = int(radius) + 1
    steps = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    distance = (steps[:, None].square() + steps.square()).sqrt()
    kernel = (radius + 0.5 - distance).clamp(0, 1)  # the rim, antialiased
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1, -1)
    padded = F.pad(image, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, kernel, groups=image.shape[1])
