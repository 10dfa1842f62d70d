"""Batches for the diffusion model with three jobs: every clean crop becomes a task of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import VPredictionPrepareBatch
from monai.inferers import DiffusionInferer
from torch import Tensor, nn

from monai_sasm.datasets.draws import Draws
from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.experts.enhance import FACTORS, JOBS, EnhanceDiffusion, base_of

_SIDE = max(FACTORS.values())  # pixels; a crop is to be that of whole smaller ones


class PrepareEnhancement(VPredictionPrepareBatch):
    """Clean crops become ``z``, its noise, time, conditions and job; the target is the velocity.

    Args:
        expert: says what is diffused and what the conditions are; its network is not called.
        scheduler: MONAI scheduler with ``prediction_type`` ``v_prediction``.
        noise: draws the noise of the job denoise.
        holes: draws the holes of the job inpaint.
        shares: relative frequency of each job, in the order of :data:`~monai_sasm.experts.enhance.JOBS`.
        last: share of the times that are the last: training for one step; the others are uniform.
        seed: of jobs, degradations, times and noise.
    """

    def __init__(
        self,
        expert: EnhanceDiffusion,
        scheduler: Any,
        noise: DegradationModel,
        holes: DegradationModel,
        shares: tuple[float, ...] = (0.3, 0.1, 0.3, 0.3),
        last: float = 0.6,
        seed: int = 0,
    ) -> None:
        super().__init__(scheduler, scheduler.num_train_timesteps)
        if scheduler.prediction_type != "v_prediction":
            raise ValueError(f"the scheduler's prediction_type must be v_prediction, got {scheduler.prediction_type!r}")
        if len(shares) != len(JOBS) or min(shares) < 0 or not sum(shares):
            raise ValueError(
                f"shares must be {len(JOBS)} non-negative numbers, one per job {JOBS}, got {tuple(shares)}"
            )
        if not 0 <= last <= 1:
            raise ValueError(f"last is a probability in [0, 1], got {last}")
        self.expert, self.noise, self.holes, self.last = expert, noise, holes, last
        self.shares = torch.tensor([float(share) for share in shares])
        self.draws = Draws(seed)

    def get_noise(self, images: Tensor) -> Tensor:
        """Standard normal noise."""
        return torch.randn(images.shape, generator=self.draws.generator)

    def get_timesteps(self, images: Tensor) -> Tensor:
        """One time index per image, ``(B,)``."""
        times = torch.randint(self.num_train_timesteps, (len(images),), generator=self.draws.generator)
        last = torch.rand(len(images), generator=self.draws.generator) < self.last
        return torch.where(last, self.num_train_timesteps - 1, times)

    def tasks(self, clean: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A job for each clean crop ``(B, 3, H, W)``: base, known pixels, noise map, and index of the job ``(B,)``."""
        batch, channels, height, width = clean.shape
        if height % _SIDE or width % _SIDE:
            raise ValueError(f"sides of crops must be multiples of {_SIDE} (crop_size), got {height} x {width}")
        jobs = torch.multinomial(self.shares, batch, replacement=True, generator=self.draws.generator)
        base, known, sigma = clean.clone(), torch.ones_like(clean[:, :1]), torch.zeros_like(clean[:, :1])
        for index in jobs.unique().tolist():
            job, chosen = JOBS[index], jobs == index
            part, shape = clean[chosen], (int(chosen.sum()), channels, height, width)
            noisy = part
            if job == "denoise":
                noise = self.noise.draw(shape, self.draws.generator)
                noisy, sigma[chosen] = self.noise.apply(part, noise), noise.sigma
            elif job == "inpaint":
                known[chosen] = 1 - self.holes.draw(shape, self.draws.generator).mask
            base[chosen] = base_of(job, part, noisy, known[chosen])
        return base, known, sigma, jobs

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Any]]:
        clean = batchdata["image"]
        parts = (clean, *self.tasks(clean))
        clean, base, known, sigma, jobs = (part.to(device, non_blocking=non_blocking) for part in parts)
        with torch.no_grad():
            task = {"image": self.expert.lacking(clean, base, jobs), "label": clean}
            condition = self.expert.conditions(base, known, sigma, jobs)
        images, target, args, keywords = super().__call__(task, device, non_blocking, **kwargs)
        return images, target, args, {**keywords, "condition": condition, "label": jobs}


class LabelledInferer(DiffusionInferer):
    """MONAI's inferer for networks with a class label, with the condition as further input channels."""

    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: nn.Module, *args: Any, label: Tensor, **kwargs: Any
    ) -> Tensor:
        """Predict for ``inputs`` noised to their times; keywords as :class:`PrepareEnhancement` gives them."""

        def labelled(x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
            prediction: Tensor = network(x, timesteps=timesteps, context=context, class_labels=label)
            return prediction

        unet: Any = labelled
        return super().__call__(inputs, unet, *args, **{**kwargs, "mode": "concat"})
