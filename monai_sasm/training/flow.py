"""Batches for training a flow refiner: pairs of clean and mixed photos become ``x_s``, its time and the anchor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import DiffusionPrepareBatch
from torch import Tensor

from monai_sasm.training.batches import Prepared


class PrepareFlow(DiffusionPrepareBatch):
    """Input ``x_s``, target ``x_0``, time and anchor as further arguments: what a :class:`FlowEstimate` is asked.

    The source of the flow is the mixed photo, the anchor, plus source noise. Squared error of the estimate of ``x_0``
    is the flow-matching loss weighted by ``s**2``, which leaves the weight where few-step sampling needs it.

    Args:
        scheduler: MONAI's ``RFlowScheduler``, which places ``x_s`` on the line.
        noise: standard deviation of the source noise, photos in [0, 1].
        first: share of the batch at the beginning of the flow, where every sampler starts; the other times are uniform.
        seed: of times and noise.
    """

    def __init__(self, scheduler: Any, noise: float = 0.05, first: float = 0.5, seed: int = 0) -> None:
        super().__init__(num_train_timesteps=scheduler.num_train_timesteps)
        if not 0 <= first <= 1:
            raise ValueError(f"first is a share of the batch in [0, 1], got {first}")
        self.scheduler, self.noise, self.first = scheduler, noise, first
        self.generator = torch.Generator().manual_seed(seed)

    def get_noise(self, images: Tensor) -> Tensor:
        """The source of the flow: ``images``, the anchors in [-1, 1], with noise."""
        return images + 2 * self.noise * torch.randn(images.shape, generator=self.generator)

    def get_timesteps(self, images: Tensor) -> Tensor:
        """One time per image, ``(B,)``, in (0, num_train_timesteps]."""
        share = 1 - torch.rand(len(images), generator=self.generator)
        begins = torch.rand(len(images), generator=self.generator) < self.first
        return torch.where(begins, 1.0, share) * self.scheduler.num_train_timesteps

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> Prepared:
        clean, anchor = (2 * batchdata[key] - 1 for key in ("clean", "noisy"))
        source, times = self.get_noise(anchor), self.get_timesteps(anchor)
        x = self.scheduler.add_noise(original_samples=clean, noise=source, timesteps=times)
        moved = [part.to(device, non_blocking=non_blocking) for part in (x, clean, times, anchor)]
        return moved[0], moved[1], (moved[2], moved[3]), {}
