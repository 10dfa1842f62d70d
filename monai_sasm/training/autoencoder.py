"""Training the autoencoder of latent diffusion: latents drawn, not their mean, and a loss that keeps them bounded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_sasm.experts.latent import PhotoAutoencoder
from monai_sasm.types import ImageBatch

Drawn = tuple[ImageBatch, Tensor, Tensor]
"""Photo decoded from drawn latents, and the mean and standard deviation they were drawn with."""


class DrawnLatents(nn.Module):
    """An autoencoder as it is trained: decodes latents drawn from the encoder's distribution.

    Args:
        autoencoder: its weights are this module's only ones.
    """

    def __init__(self, autoencoder: PhotoAutoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, image: ImageBatch) -> Drawn:
        """``image`` ``(B, 3, H, W)`` in [0, 1]."""
        height, width = image.shape[-2:]
        mean, deviation = self.autoencoder.distribution(image)
        decoded = self.autoencoder.decode(mean + deviation * torch.randn_like(deviation))
        return decoded[..., :height, :width], mean, deviation


class AutoencoderLoss(nn.Module):
    r"""Mean absolute error plus ``kl`` times the divergence from the standard normal distribution.

    The divergence of an image is :math:`\frac12 \sum (\mu^2 + \sigma^2 - \ln \sigma^2 - 1)`, as Rombach et al. 2022
    weigh it (appendix G): just enough to keep latents from growing.

    Args:
        kl: weight of the divergence.
        perceptual: further loss of photos, :class:`monai_sasm.losses.restoration.RestorationLoss` with ``low=0`` say.
    """

    def __init__(self, kl: float = 1e-6, perceptual: nn.Module | None = None) -> None:
        super().__init__()
        if kl < 0:
            raise ValueError(f"kl must not be negative, got {kl}")
        self.kl, self.perceptual = kl, perceptual

    def forward(self, drawn: Drawn, target: ImageBatch) -> Tensor:
        """What :class:`DrawnLatents` returns, and the photo ``(B, 3, H, W)``."""
        image, mean, deviation = drawn
        variance = deviation.square()
        divergence = 0.5 * (mean.square() + variance - variance.clamp_min(1e-30).log() - 1).flatten(1).sum(1).mean()
        loss = (image - target).abs().mean() + self.kl * divergence
        return loss if self.perceptual is None else loss + self.perceptual(image, target)
