"""Low-quality MR, made where the scanner makes it: fewer k-space samples and complex thermal noise.

With ``F`` the centred orthonormal 2-D Fourier transform and ``M`` a mask (or window) of the sampled centre,

    m = | F^-1( M . F(x) + n ) |,   n complex Gaussian, standard deviation sigma in the real and in the imaginary part.

``F`` is unitary, so noise of standard deviation sigma in k-space is noise of standard deviation sigma in the image, and
the magnitude is Rician (Gudbjartsson and Patz 1995): ``E[m^2] = |F^-1 M F x|^2 + 2 sigma^2``. The grid and the image
scale are kept: the zero frequency passes unchanged. Bicubic shrinking, which no scanner does, is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_sasm.degradations.draws import draw_seed, log_uniform, uniform
from monai_sasm.types import ImageBatch, NoiseMap

PHASE_AXIS, READ_AXIS = -2, -1  # rows (phase encoding) and columns (frequency encoding) of (B, C, H, W)


def to_kspace(image: Tensor) -> Tensor:
    """Centred orthonormal 2-D Fourier transform over the last two axes; complex, same shape."""
    return torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(image, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


def to_image(kspace: Tensor) -> Tensor:
    """Inverse of :func:`to_kspace`; complex, same shape."""
    return torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))


@dataclass(frozen=True)
class KspaceParams:
    """One draw of an MR degradation.

    Args:
        factor: (B,), how many times fewer samples along each truncated axis; 1 keeps all.
        sigma: (B, 1, H, W), noise standard deviation of the real and of the imaginary part, image unit.
        seed: seed of the noise field.
    """

    factor: Tensor
    sigma: NoiseMap
    seed: int

    @property
    def mask(self) -> NoiseMap:
        """(B, 1, H, W): 1 for degraded images; k-space touches every pixel."""
        truncated = (self.factor > 1).view(-1, 1, 1, 1)
        return ((self.sigma > 0) | truncated).float()


class KspaceTruncation:
    """Keep only the centre of k-space, on the same grid (zero-filled reconstruction).

    Args:
        factor: range of the truncation factor, drawn log-uniformly, at least 1; 2 keeps the central half of each axis.
        axes: which axes to truncate: -2 (rows, phase encoding), -1 (columns).
        apodisation: 0 for a hard edge (Gibbs ringing), 1 for a full Hann roll-off inside the kept samples; a Tukey
            window between.
        fermi: width of a Fermi window's transition, share of the kept half width, in place of ``apodisation``; 0 for
            none. Its middle lies three widths inside the edge: 0.05 in the last kept sample.
    """

    def __init__(
        self,
        factor: tuple[float, float] = (2.0, 2.0),
        axes: Sequence[int] = (PHASE_AXIS, READ_AXIS),
        apodisation: float = 0.0,
        fermi: float = 0.0,
    ) -> None:
        if not 1 <= factor[0] <= factor[1]:
            raise ValueError(f"factor must be an increasing range of numbers of at least 1, got {factor}")
        if not axes or not set(axes) <= {PHASE_AXIS, READ_AXIS}:
            raise ValueError(f"axes must name -2 (rows), -1 (columns) or both, got {tuple(axes)}")
        if not 0 <= apodisation <= 1:
            raise ValueError(f"apodisation must lie in [0, 1], got {apodisation}")
        if not 0 <= fermi <= 0.25 or (fermi and apodisation):
            raise ValueError(f"fermi must lie in [0, 0.25] and takes the place of apodisation, got {fermi}")
        self.factor, self.axes, self.apodisation, self.fermi = tuple(factor), tuple(axes), apodisation, fermi

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> KspaceParams:
        """Draw factors for a batch ``(B, C, H, W)``; no noise."""
        return KspaceParams(
            factor=log_uniform(self.factor, torch.rand(shape[0], generator=generator)),
            sigma=torch.zeros(shape[0], 1, *shape[2:]),
            seed=draw_seed(generator),
        )

    def apply(self, clean: ImageBatch, params: KspaceParams) -> ImageBatch:
        """Magnitude of the zero-filled reconstruction; images with factor 1 are returned unchanged."""
        truncated = to_image(self.window(params, clean.shape[-2:]).to(clean.device) * to_kspace(clean.float())).abs()
        return torch.where((params.factor > 1).view(-1, 1, 1, 1).to(clean.device), truncated.to(clean.dtype), clean)

    def window(self, params: KspaceParams, size: Sequence[int]) -> Tensor:
        """Weights (B, 1, H, W) of the k-space samples, 1 at the zero frequency, 0 where nothing was measured."""
        weights = torch.ones(len(params.factor), 1, size[-2], size[-1])
        for axis in self.axes:
            kept = [kept_samples(size[axis], float(factor), self.apodisation, self.fermi) for factor in params.factor]
            profile = torch.stack(kept)
            weights = weights * (profile[:, None, :, None] if axis == PHASE_AXIS else profile[:, None, None, :])
        return weights


class KspaceNoise:
    """Complex Gaussian noise in k-space, magnitude image: Rician noise.

    Args:
        sigma: range of the standard deviation, drawn uniformly; relative to the ``scale`` of the images.
        scale: intensity that counts as 1; leave at 1 for images scaled to [0, 1].
    """

    def __init__(self, sigma: tuple[float, float] = (0.02, 0.15), scale: float = 1.0) -> None:
        if not 0 <= sigma[0] <= sigma[1]:
            raise ValueError(f"sigma must be an increasing range of non-negative numbers, got {sigma}")
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.sigma, self.scale = tuple(sigma), scale

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> KspaceParams:
        """Draw one standard deviation per image of a batch ``(B, C, H, W)``."""
        sigma = uniform(self.sigma, torch.rand(shape[0], 1, 1, 1, generator=generator)) * self.scale
        return KspaceParams(
            factor=torch.ones(shape[0]), sigma=sigma.repeat(1, 1, shape[2], shape[3]), seed=draw_seed(generator)
        )

    def apply(self, clean: ImageBatch, params: KspaceParams) -> ImageBatch:
        """Magnitude of the noisy image; images with sigma 0 are returned unchanged."""
        generator = torch.Generator().manual_seed(params.seed)
        real, imaginary = torch.randn((2, *clean.shape), generator=generator).to(clean.device)
        sigma = params.sigma.to(clean.device)
        # F is unitary: white noise drawn in k-space, where it arises, keeps its standard deviation in the image.
        noisy = to_image(to_kspace(clean.float()) + sigma[..., :1, :1] * torch.complex(real, imaginary)).abs()
        return torch.where(sigma > 0, noisy.to(clean.dtype), clean)


class LowQualityMr:
    """Fewer samples, then noise on those that remain: a fast or low-field acquisition.

    The noise is added after zero filling over the whole grid, so its standard deviation per pixel is that of ``noise``.

    Args:
        truncation: resolution model.
        noise: noise model.
    """

    def __init__(self, truncation: KspaceTruncation, noise: KspaceNoise) -> None:
        self.truncation, self.noise = truncation, noise

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> KspaceParams:
        """Draw truncation and noise for a batch ``(B, C, H, W)``."""
        factor = self.truncation.draw(shape, generator).factor
        noise = self.noise.draw(shape, generator)
        return KspaceParams(factor=factor, sigma=noise.sigma, seed=noise.seed)

    def apply(self, clean: ImageBatch, params: KspaceParams) -> ImageBatch:
        """Truncate, add noise, take the magnitude."""
        return self.noise.apply(self.truncation.apply(clean, params), params)


def kept_samples(length: int, factor: float, apodisation: float, fermi: float = 0.0) -> Tensor:
    """Tukey or Fermi window (length,) over the central ``length / factor`` samples, 1 in the middle."""
    half = max(length / factor / 2, 0.5)
    distance = (torch.arange(length) - length // 2).abs() / half
    if fermi:
        return torch.where(distance < 1, torch.sigmoid((1 - 3 * fermi - distance) / fermi), torch.zeros(()))
    flat = 1 - apodisation
    roll = 0.5 * (1 + torch.cos(math.pi * ((distance - flat) / max(apodisation, 1e-6)).clamp(0, 1)))
    # Symmetric about the zero frequency, so that a real image stays real.
    return torch.where(distance < 1, roll, torch.zeros(()))
