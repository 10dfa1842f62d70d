"""Batches and loss for training a :class:`~monai_sasm.experts.generative.GenerativeRestorer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from monai_sasm.datasets.draws import Draws
from monai_sasm.experts.generative import GenerativeRestorer
from monai_sasm.functional.neighbours import fit_neighbours
from monai_sasm.training.batches import Prepared


class PrepareGenerative:
    """Pairs become ``z_t``, its time, the degraded image and its noise map; the target has two halves.

    The target ``(B, 2 C, H, W)`` is what the process predicts, then the clean image; see :class:`GenerativeLoss`.

    Args:
        restorer: says what is generated; its network is not called.
        pairs: batch -> degraded image, clean image, noise map if any: one of :mod:`monai_sasm.training.batches`.
        last: share of the times that are pure noise: training for one step; the others are uniform.
        seed: of times and noise.
    """

    def __init__(
        self, restorer: GenerativeRestorer, pairs: Callable[..., Prepared], last: float = 0.5, seed: int = 0
    ) -> None:
        if not 0 <= last <= 1:
            raise ValueError(f"last is a probability in [0, 1], got {last}")
        self.restorer, self.pairs, self.last = restorer, pairs, last
        self.draws = Draws(seed)

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> Prepared:
        image, clean, maps, _keywords = self.pairs(batchdata)
        process = self.restorer.process
        times = process.draw(len(clean), self.draws.generator)
        ends = torch.rand(len(clean), generator=self.draws.generator) < self.last
        t = torch.where(ends, torch.as_tensor(process.last).to(times.dtype), times)
        noise = torch.randn(clean.shape, generator=self.draws.generator)
        z = (clean - fit_neighbours(image, 0, self.restorer.channels)) / self.restorer.scale
        target = torch.cat([process.target(z, noise, t), clean], 1)
        parts = (process.noised(z, noise, t), target, t, image, *maps)
        moved = [part.to(device, non_blocking=non_blocking) for part in parts]
        return moved[0], moved[1], tuple(moved[2:]), {}


class GenerativeLoss(nn.Module):
    """``diffusion`` times the squared error of the prediction, plus a loss of the restored image.

    Args:
        diffusion: weight of the first term: denoising diffusion, or flow matching.
        image: loss of the image that the prediction means, see :class:`monai_sasm.losses.restoration.RestorationLoss`.
    """

    def __init__(self, diffusion: float = 1.0, image: nn.Module | None = None) -> None:
        super().__init__()
        if diffusion < 0 or (not diffusion and image is None):
            raise ValueError(f"diffusion must not be negative, nor 0 without a loss of the image, got {diffusion}")
        self.diffusion, self.image = diffusion, image

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Both ``(B, 2 C, H, W)``: what is predicted, then the image."""
        (predicted, restored), (wanted, clean) = prediction.chunk(2, 1), target.chunk(2, 1)
        loss = self.diffusion * (predicted - wanted).square().mean()
        return loss if self.image is None else loss + self.image(restored, clean)
