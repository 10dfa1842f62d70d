"""Thick slices seen from the side: averaged along one axis of a plane, and interpolated back to its grid.

With ``W`` and ``S`` of :class:`~monai_sasm.degradations.slice_profile.SliceProfile` along the rows of a plane ``x``,

    y = S | W x + n |,   n complex Gaussian, standard deviation sigma in the real and in the imaginary part,

``|.|`` the magnitude. That is what :func:`monai_sasm.restoration.thin.thin_volume` shows an expert: planes that contain
the slice axis of a volume, blurred and smoothly interpolated along it, and sharp across.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_sasm.degradations.draws import draw_seed, log_uniform
from monai_sasm.degradations.slice_profile import SliceProfile
from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class ThickParams:
    """One draw of :class:`ThickSlices`.

    Args:
        factor: (B,), thin slices in a thick one; 1 leaves an image as it is.
        sigma: (B, 1, H, W), noise standard deviation of the acquired thick slices, image unit; 0 where factor is 1.
        seed: seed of the noise.
    """

    factor: Tensor
    sigma: NoiseMap
    seed: int

    @property
    def mask(self) -> NoiseMap:
        """(B, 1, H, W): 1 for images whose slices are thick."""
        return (self.factor > 1).float().view(-1, 1, 1, 1).expand_as(self.sigma)


class ThickSlices:
    """Rows (axis -2) become thick slices that are interpolated back to the grid.

    Args:
        factor: range of the number of thin slices in a thick one, drawn log-uniformly, at least 1; rounded so that a
            whole number of thick slices fits.
        sigma: range of the noise of the thick slices, image unit, drawn uniformly.
        profile: ``slab`` (2-D acquisition) or ``sinc`` (3-D acquisition).
    """

    def __init__(
        self, factor: tuple[float, float] = (2.0, 6.0), sigma: tuple[float, float] = (0.0, 0.0), profile: str = "slab"
    ) -> None:
        if not 1 <= factor[0] <= factor[1]:
            raise ValueError(f"factor must be an increasing range of numbers of at least 1, got {factor}")
        if not 0 <= sigma[0] <= sigma[1]:
            raise ValueError(f"sigma must be an increasing range of non-negative numbers, got {sigma}")
        SliceProfile(2, 2, profile)  # refuses an unknown profile at once
        self.factor, self.sigma, self.profile = tuple(factor), tuple(sigma), profile

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> ThickParams:
        """Draw a factor and a noise level per image of a batch ``(B, C, H, W)``."""
        least, most = self.sigma
        sigma = least + (most - least) * torch.rand(shape[0], 1, 1, 1, generator=generator)
        factor = log_uniform(self.factor, torch.rand(shape[0], generator=generator))
        sigma = sigma * (factor > 1).view(-1, 1, 1, 1)
        return ThickParams(
            factor=factor,
            sigma=sigma.repeat(1, 1, shape[2], shape[3]),
            seed=draw_seed(generator),
        )

    def apply(self, clean: ImageBatch, params: ThickParams) -> ImageBatch:
        """Average, add noise, take the magnitude, interpolate; images with factor 1 are returned unchanged."""
        generator = torch.Generator().manual_seed(params.seed)
        images = [
            self._thickened(image, float(factor), float(sigma.flatten()[0]), generator) if factor > 1 else image
            for image, factor, sigma in zip(clean, params.factor, params.sigma, strict=True)
        ]
        return torch.stack(images)

    def _thickened(self, image: Tensor, factor: float, sigma: float, generator: torch.Generator) -> Tensor:
        rows = image.shape[-2]
        profile = SliceProfile(max(2, min(round(rows / factor), rows)), rows, self.profile)
        averaging, interpolation = (
            torch.from_numpy(matrix).float().to(image.device) for matrix in (profile.averaging, profile.interpolation)
        )
        thick = averaging @ image.float()
        if sigma:
            real, imaginary = torch.randn((2, *thick.shape), generator=generator).to(image.device)
            thick = torch.hypot(thick + sigma * real, sigma * imaginary)
        return (interpolation @ thick).to(image.dtype)
