"""Schedules, exact denoisers and small networks shared by the tests of this room."""

from __future__ import annotations

import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.diffusion.denoising import level


def scheduler(prediction: str = "epsilon") -> DDIMScheduler:
    """The schedule of Ho et al. 2020 without clipping."""
    return DDIMScheduler(
        1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False, prediction_type=prediction
    )


def noised(clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """``x_t`` of a clean image and its noise."""
    kept = level(scheduler().alphas_cumprod, t, clean)
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


class Affine(nn.Module):
    """A network with a closed form: ``scale * x + t / 1000``; keeps what it was called with."""

    def __init__(self, scale: float = 0.3) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.calls: list[tuple[torch.Size, Tensor, Tensor | None]] = []

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        self.calls.append((x.shape, timesteps.clone(), class_labels))
        return self.scale * x + (timesteps / 1000).to(x).view(-1, 1, 1, 1)


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
