"""Batches for training diffusion models: images in [0, 1] become ``x_t``, its time and what is to be predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import DiffusionPrepareBatch
from torch import Tensor

from monai_sasm.datasets.draws import Draws
from monai_sasm.training.batches import Prepared


class PrepareDenoising(DiffusionPrepareBatch):
    """Input ``x_t``, target ``x_0``, ``t`` as second argument: what a ``Denoiser`` is asked.

    MONAI's own returns the clean image and leaves the noising to its inferer, with the noise as target; a loss on the
    image itself, such as a perceptual one, needs the estimate of ``x_0``.

    Args:
        scheduler: MONAI scheduler that adds the noise.
        times: first and last time index drawn. A denoiser of photos never meets the noisiest ones.
        skew: times are drawn as ``first + (last - first) * u**skew``, u uniform; above 1 prefers little noise.
        seed: of times and noise.
    """

    def __init__(self, scheduler: Any, times: tuple[int, int] = (0, 999), skew: float = 1.0, seed: int = 0) -> None:
        super().__init__(num_train_timesteps=scheduler.num_train_timesteps)
        if not 0 <= times[0] <= times[1] < scheduler.num_train_timesteps:
            raise ValueError(f"times must lie in 0 to {scheduler.num_train_timesteps - 1} and rise, got {tuple(times)}")
        if not skew > 0:
            raise ValueError(f"skew must be positive, got {skew}")
        self.scheduler, self.times, self.skew = scheduler, tuple(times), skew
        self.draws = Draws(seed)

    def get_noise(self, images: Tensor) -> Tensor:
        """Standard normal noise."""
        return torch.randn(images.shape, generator=self.draws.generator)

    def get_timesteps(self, images: Tensor) -> Tensor:
        """One time index per image, ``(B,)``."""
        share = torch.rand(len(images), generator=self.draws.generator) ** self.skew
        return (self.times[0] + share * (self.times[1] - self.times[0])).round().long()

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Prepared:
        clean = 2 * batchdata["image"] - 1
        noise, times = self.get_noise(clean), self.get_timesteps(clean)
        noisy = self.scheduler.add_noise(original_samples=clean, noise=noise, timesteps=times)
        moved = [part.to(device, non_blocking=non_blocking) for part in (noisy, clean, times)]
        return moved[0], moved[1], (moved[2],), {}
