"""Fewer pixels: antialiased bicubic downsampling, the usual model of a low-resolution photo.

The kernel is Keys' cubic with a = -1/2 (Keys 1981, IEEE TASSP 29(6)), stretched by the factor when downsampling, as in
MATLAB's ``imresize`` and in Pillow. At the image border the kernel is cut off and its weights made to sum to 1 again,
as Pillow does; MATLAB mirrors the image instead, so the outermost ``2 * factor`` pixels differ from its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from monai_sasm.types import ImageBatch, NoiseMap


def downsample(image: ImageBatch, factor: int) -> ImageBatch:
    """``image`` ``(B, C, H, W)`` at ``(ceil(H / factor), ceil(W / factor))``.

    Sides that are no multiple of ``factor`` are first extended to one by repeating the last row and column.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    bottom, right = -image.shape[-2] % factor, -image.shape[-1] % factor
    whole = F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
    return _resized(whole, whole.shape[-2] // factor, whole.shape[-1] // factor)


def upsample(image: ImageBatch, factor: int) -> ImageBatch:
    """``image`` ``(B, C, H, W)`` at ``(H * factor, W * factor)``, bicubic."""
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    return _resized(image, image.shape[-2] * factor, image.shape[-1] * factor)


def _resized(image: ImageBatch, height: int, width: int) -> ImageBatch:
    if image.shape[-2:] == (height, width):
        return image
    exact = image if image.dtype in (torch.float32, torch.float64) else image.float()
    # antialias also chooses a = -1/2; without it torch takes -3/4
    return F.interpolate(exact, size=(height, width), mode="bicubic", antialias=True).to(image.dtype)


@dataclass(frozen=True)
class DownsamplingParams:
    """One draw of :class:`Downsampling`.

    Args:
        factors: one per image.
        size: (H, W) of the images.
    """

    factors: tuple[int, ...]
    size: tuple[int, int]

    @property
    def sigma(self) -> NoiseMap:
        """Zeros ``(B, 1, H, W)``: no noise is added."""
        return torch.zeros(len(self.factors), 1, *self.size)

    @property
    def mask(self) -> NoiseMap:
        """1 everywhere in images that lost resolution, ``(B, 1, H, W)``."""
        lost = torch.tensor([float(factor > 1) for factor in self.factors])
        return lost.view(-1, 1, 1, 1).expand(-1, 1, *self.size)


class Downsampling:
    """Loss of resolution at unchanged size: :func:`downsample`, then :func:`upsample`.

    Args:
        factors: drawn from with equal chance; 1 leaves an image as it is.
    """

    def __init__(self, factors: Sequence[int] = (2, 4)) -> None:
        if not factors or min(factors) < 1:
            raise ValueError(f"factors must be integers of at least 1, got {list(factors)}")
        self.factors = tuple(factors)

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> DownsamplingParams:
        """Draw a factor for each image of a batch ``(B, C, H, W)``."""
        chosen = torch.randint(len(self.factors), (shape[0],), generator=generator)
        return DownsamplingParams(tuple(self.factors[int(index)] for index in chosen), (shape[2], shape[3]))

    def apply(self, clean: ImageBatch, params: DownsamplingParams) -> ImageBatch:
        """``clean`` ``(B, C, H, W)`` without the detail that its factor cannot hold."""
        height, width = clean.shape[-2:]
        result = clean.clone()
        for factor in set(params.factors) - {1}:
            chosen = torch.tensor([own == factor for own in params.factors], device=clean.device)
            result[chosen] = upsample(downsample(clean[chosen], factor), factor)[..., :height, :width]
        return result
