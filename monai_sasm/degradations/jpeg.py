"""JPEG: what another degradation made, written to a file and read again.

The file's quantisation changes the noise of a photo, which then is neither white nor independent of the picture.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class CompressedParams:
    """One draw of :class:`Compressed`.

    Args:
        degraded: draw of the degradation.
        quality: of the file, one per image; 0 where none is written.
    """

    degraded: Any
    quality: tuple[int, ...]

    @property
    def sigma(self) -> NoiseMap:
        """Noise map ``(B, 1, H, W)`` of the degradation, before compression."""
        return self.degraded.sigma

    @property
    def mask(self) -> NoiseMap:
        """``(B, 1, H, W)``: where the degradation acted, everywhere in a compressed image."""
        mask = self.degraded.mask
        written = torch.tensor([float(quality > 0) for quality in self.quality]).to(mask)
        return torch.maximum(mask, written.view(-1, 1, 1, 1))


class Compressed:
    """A degradation whose result is a JPEG file.

    Args:
        degradation: what happens before.
        quality: range of the file's quality, 1 to 95 (Pillow's scale).
        share: of the images that are written as JPEG, 0 to 1.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.gaussian import GaussianNoise
        >>> from monai_sasm.degradations.jpeg import Compressed
        >>> noise = Compressed(GaussianNoise(sigma=(0.1, 0.1)), quality=(80, 95))
        >>> params = noise.draw((1, 3, 64, 64), torch.Generator().manual_seed(0))
        >>> noisy = noise.apply(torch.rand(1, 3, 64, 64), params)
    """

    def __init__(self, degradation: DegradationModel, quality: tuple[int, int] = (60, 95), share: float = 0.5) -> None:
        if not 1 <= quality[0] <= quality[1] <= 95:
            raise ValueError(f"quality must be an increasing range in 1 to 95, got {quality}")
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {share}")
        self.degradation, self.share = degradation, share
        self.quality = (quality[0], quality[1])

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> CompressedParams:
        """Draw the degradation and the files' quality for a batch ``(B, 3, H, W)``.

        Raises:
            ValueError: not three channels.
        """
        if shape[1] != 3:
            raise ValueError(f"JPEG needs colour images of 3 channels, got {shape[1]}")
        degraded = self.degradation.draw(shape, generator)
        drawn = torch.randint(self.quality[0], self.quality[1] + 1, (shape[0],), generator=generator)
        written = torch.rand(shape[0], generator=generator) < self.share
        return CompressedParams(degraded, tuple((drawn * written).tolist()))

    def apply(self, clean: ImageBatch, params: CompressedParams) -> ImageBatch:
        """Degraded photos; those that are written are clipped to [0, 1] and have 8 bits."""
        return write(self.degradation.apply(clean, params.degraded), params.quality)

    def reference(self, clean: ImageBatch, params: CompressedParams) -> ImageBatch:
        """What a perfect restoration returns, see :func:`monai_sasm.degradations.degradation.reference`."""
        return reference(self.degradation, clean, params.degraded)


def write(photos: ImageBatch, quality: tuple[int, ...]) -> ImageBatch:
    """``photos`` ``(B, 3, H, W)`` as they come back out of JPEG files, their colours at half resolution.

    Args:
        photos: in [0, 1]; clipped where they are written.
        quality: one per photo; 0 returns it as it is.
    """
    if not any(quality):
        return photos
    return torch.stack([_written(photo, number) for photo, number in zip(photos, quality, strict=True)])


def _written(photo: torch.Tensor, quality: int) -> torch.Tensor:
    if not quality:
        return photo
    file = io.BytesIO()
    pixels = (photo.detach().cpu().clamp(0, 1).movedim(0, -1) * 255).round().byte().numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0).to(photo) / 255
