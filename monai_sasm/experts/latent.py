"""The same three jobs in the space of an autoencoder: a sixteenth of the pixels, so each step costs a fraction.

Latent diffusion (Rombach et al. 2022) of what the base lacks: :math:`z = (E(x) - E(base)) / scale` with E the mean of
the encoder. Base and noise level are conditions as for the pixel model, the base encoded by the same autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.experts.enhance import JOBS, EnhanceDiffusion
from monai_sasm.functional.tiling import pad_to_multiple
from monai_sasm.types import ImageBatch, NoiseMap


class PhotoAutoencoder(nn.Module):
    """MONAI's ``AutoencoderKL`` on blocks of pixels folded into channels; any height and width fit.

    Folding first and convolving afterwards costs a fraction of convolutions at full resolution.

    Args:
        autoencoder: ``AutoencoderKL`` with one level and ``3 * patch**2`` channels in and out.
        patch: side of a block in pixels, and of the area that one latent pixel describes.
    """

    def __init__(self, autoencoder: Any, patch: int = 4) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch must be at least 1, got {patch}")
        self.autoencoder = autoencoder
        self.patch = patch
        self.channels: int = autoencoder.latent_channels

    def distribution(self, image: ImageBatch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``(B, channels, ceil(H / patch), ceil(W / patch))`` of the latents.

        ``image`` is ``(B, 3, H, W)`` in [0, 1].
        """
        folded = F.pixel_unshuffle(pad_to_multiple(2 * image - 1, self.patch), self.patch)
        mean, deviation = self.autoencoder.encode(folded)
        return mean, deviation

    def encode(self, image: ImageBatch) -> Tensor:
        """Mean of the latents of ``image`` ``(B, 3, H, W)``."""
        return self.distribution(image)[0]

    def decode(self, latent: Tensor) -> ImageBatch:
        """Photos ``(B, 3, h * patch, w * patch)`` of ``latent`` ``(B, channels, h, w)``."""
        return (F.pixel_shuffle(self.autoencoder.decode(latent), self.patch) + 1) / 2

    def forward(self, image: ImageBatch) -> ImageBatch:
        """``image`` ``(B, 3, H, W)`` encoded and decoded."""
        height, width = image.shape[-2:]
        return self.decode(self.encode(image))[..., :height, :width]


class LatentEnhanceDiffusion(EnhanceDiffusion):
    """:class:`~monai_sasm.experts.enhance.EnhanceDiffusion` on latents.

    Measured data are put back at the end only, for they cannot be compared with latents.

    Args:
        network: as there, on the latents' channels: twice as many and 2 more in (z, encoded base, known share, noise
            level), as many out.
        autoencoder: frozen.
        spread: about the standard deviation of the encoded photos, to scale the encoded base.
        keywords: as there; ``scale`` is the root mean square of the difference of two latents.
    """

    def __init__(self, network: nn.Module, autoencoder: PhotoAutoencoder, spread: float = 1.0, **keywords: Any) -> None:
        super().__init__(network, channels=autoencoder.channels, patch=autoencoder.patch, **keywords)
        if not spread > 0:
            raise ValueError(f"spread must be positive, got {spread}")
        self.autoencoder = autoencoder.requires_grad_(False)
        self.spread = spread

    def lacking(self, image: ImageBatch, base: ImageBatch, job: Tensor) -> Tensor:
        """Difference of the latents ``(B, channels, h, w)``, scaled."""
        return (self.autoencoder.encode(image) - self.autoencoder.encode(base)) / self.scale_of(job, base)

    def completed(self, z: Tensor, base: ImageBatch, job: Tensor) -> ImageBatch:
        """The base, changed by what the change ``z`` of its latents changes.

        Decoding the difference leaves what the autoencoder cannot express as it is in the base: detail of a photo, but
        noise in the job denoise, where the changed latents are decoded as they are.
        """
        height, width = base.shape[-2:]
        latent = self.autoencoder.encode(base)
        change = self.scale_of(job, base) * z
        changed, same = self.autoencoder.decode(torch.cat([latent + change, latent])).chunk(2)
        noisy = (job == JOBS.index("denoise")).view(-1, 1, 1, 1)
        return torch.where(noisy, changed[..., :height, :width], base + (changed - same)[..., :height, :width])

    def conditions(self, base: ImageBatch, known: Tensor, sigma: NoiseMap, job: Tensor) -> Tensor:
        """Further input channels ``(B, channels + 2, h, w)``: encoded base, share of known pixels, noise level."""
        maps = pad_to_multiple(torch.cat([known, 2 * sigma], 1), self.patch)
        return torch.cat([self.autoencoder.encode(base) / self.spread, F.avg_pool2d(maps, self.patch)], 1)

    def constrained(
        self, z: Tensor, base: ImageBatch, job: Tensor, constrain: Callable[[ImageBatch], ImageBatch]
    ) -> Tensor:
        """``z`` as it is."""
        return z
