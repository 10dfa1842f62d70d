"""Noise of MR as it leaves the scanner: filtered by the reconstruction, together with the signal.

With ``F`` the centred orthonormal 2-D Fourier transform and ``W`` the window of the reconstruction, which is 0 where
nothing was measured,

    m = | F^-1 W ( F(x) + n ) |,   n complex Gaussian, white.

Partial resolution along the phase encoding, zero filling to a larger matrix and apodisation against ringing make the
noise coarser than a pixel, along one axis more than along the other. A denoiser gives back ``| F^-1 W F(x) |``: what
was not measured is not to be invented.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_sasm.degradations.draws import draw_seed, log_uniform, uniform
from monai_sasm.degradations.kspace import kept_samples, to_image, to_kspace
from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class FilteredNoiseParams:
    """One draw of :class:`FilteredNoise`.

    Args:
        factor: (B, 2), how many times fewer samples rows and columns have; 1 keeps all.
        apodisation: (B, 2), share of the samples over which the window falls; 0 for a hard edge.
        sigma: (B, 1, H, W), standard deviation of the noise in the image, of the real and of the imaginary part.
        seed: of the noise field.
    """

    factor: Tensor
    apodisation: Tensor
    sigma: NoiseMap
    seed: int

    @property
    def filtered(self) -> Tensor:
        """(B, 1, 1, 1): which images a window alters."""
        return ((self.factor > 1) | (self.apodisation > 0)).any(1).view(-1, 1, 1, 1)

    @property
    def mask(self) -> NoiseMap:
        """(B, 1, H, W): 1 for degraded images; k-space touches every pixel."""
        return ((self.sigma > 0) | self.filtered).float()


class FilteredNoise:
    """Complex noise, and the window of a reconstruction over both noise and signal; magnitude image.

    Args:
        sigma: range of the standard deviation in the filtered image, drawn uniformly, of a white of 1.
        factor: range of how many times fewer samples an axis has, drawn log-uniformly for each axis.
        apodisation: range of the share of the kept samples over which a Tukey window falls, drawn uniformly for each
            axis.
    """

    def __init__(
        self,
        sigma: tuple[float, float] = (0.01, 0.1),
        factor: tuple[float, float] = (1.0, 2.0),
        apodisation: tuple[float, float] = (0.0, 0.8),
    ) -> None:
        if not 0 <= sigma[0] <= sigma[1]:
            raise ValueError(f"sigma must be an increasing range of non-negative numbers, got {sigma}")
        if not 1 <= factor[0] <= factor[1]:
            raise ValueError(f"factor must be an increasing range of numbers of at least 1, got {factor}")
        if not 0 <= apodisation[0] <= apodisation[1] <= 1:
            raise ValueError(f"apodisation must be an increasing range in [0, 1], got {apodisation}")
        self.sigma, self.factor, self.apodisation = tuple(sigma), tuple(factor), tuple(apodisation)

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> FilteredNoiseParams:
        """Draw a window and a standard deviation per image of a batch ``(B, C, H, W)``."""
        sigma = uniform(self.sigma, torch.rand(shape[0], 1, 1, 1, generator=generator))
        return FilteredNoiseParams(
            factor=log_uniform(self.factor, torch.rand(shape[0], 2, generator=generator)),
            apodisation=uniform(self.apodisation, torch.rand(shape[0], 2, generator=generator)),
            sigma=sigma.repeat(1, 1, shape[2], shape[3]),
            seed=draw_seed(generator),
        )

    def apply(self, clean: ImageBatch, params: FilteredNoiseParams) -> ImageBatch:
        """Magnitude of the filtered noisy image; images without noise and window are returned unchanged."""
        generator = torch.Generator().manual_seed(params.seed)
        real, imaginary = torch.randn((2, *clean.shape), generator=generator).to(clean.device)
        window = _window(params, clean)
        # the window takes noise away: so much more is added
        sigma = params.sigma[..., :1, :1].to(clean.device) / (window**2).mean((-2, -1), keepdim=True).sqrt()
        kspace = to_kspace(clean.float()) + sigma * torch.complex(real, imaginary)
        return _reconstructed(window * kspace, clean, params.mask[..., :1, :1] > 0)

    def reference(self, clean: ImageBatch, params: FilteredNoiseParams) -> ImageBatch:
        """The same without noise: what a perfect denoiser returns."""
        return _reconstructed(_window(params, clean) * to_kspace(clean.float()), clean, params.filtered)


def _reconstructed(kspace: Tensor, clean: ImageBatch, touched: Tensor) -> ImageBatch:
    """Magnitude images; the clean ones where nothing was ``touched`` ``(B, 1, 1, 1)``."""
    return torch.where(touched.to(clean.device), to_image(kspace).abs().to(clean.dtype), clean)


def _window(params: FilteredNoiseParams, image: ImageBatch) -> Tensor:
    """(B, 1, H, W), real, symmetric about the zero frequency."""
    rows, columns = (
        torch.stack(
            [
                kept_samples(length, float(factor), float(apodisation))
                for factor, apodisation in zip(params.factor[:, axis], params.apodisation[:, axis], strict=True)
            ]
        )
        for axis, length in enumerate(image.shape[-2:])
    )
    return (rows[:, None, :, None] * columns[:, None, None, :]).to(image.device)
