"""Batches and loss for training a flow refiner: clean and mixed photos become ``x_s``, its time and the anchor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.engines import DiffusionPrepareBatch
from torch import Tensor, nn

from monai_sasm.datasets.draws import Draws
from monai_sasm.losses.features import Vgg19Features, feature_distance
from monai_sasm.training.batches import Prepared

FLOOR = 4e-4  # squared error, [-1, 1]: anchors nearer to the truth than 2.5 of 255 grey levels weigh no more


class PrepareFlow(DiffusionPrepareBatch):
    """Input ``x_s``, target ``x_0``, time and anchor as further arguments: what a :class:`FlowEstimate` is asked.

    The source of the flow is the mixed photo, the anchor, plus source noise. Errors of the experts differ a
    hundredfold between photos (a drop that was missed, hardly any noise), and what is left of a drop cannot be learnt;
    so the target has a last channel with a weight for :class:`FlowLoss`: one over the anchor's mean squared error.

    Where the batch has a ``source``, what the mixed photo was restored from, it follows the anchor; the mixed photo
    itself takes its place in a share ``blind`` of the batch.

    Args:
        scheduler: MONAI's ``RFlowScheduler``, which places ``x_s`` on the line.
        noise: standard deviation of the source noise, photos in [0, 1].
        first: share of the batch at the beginning of the flow, where every sampler starts; the other times are uniform.
        seed: of times and noise.
        blind: share of the batch whose source is not shown: photos that come restored.
    """

    def __init__(
        self, scheduler: Any, noise: float = 0.05, first: float = 0.5, seed: int = 0, blind: float = 0.1
    ) -> None:
        super().__init__(num_train_timesteps=scheduler.num_train_timesteps)
        if not (0 <= first <= 1 and 0 <= blind <= 1):
            raise ValueError(f"first and blind are shares of the batch in [0, 1], got {first} and {blind}")
        self.scheduler, self.noise, self.first, self.blind = scheduler, noise, first, blind
        self.draws = Draws(seed)

    def get_noise(self, images: Tensor) -> Tensor:
        """The source of the flow: ``images``, the anchors in [-1, 1], with noise."""
        return images + 2 * self.noise * torch.randn(images.shape, generator=self.draws.generator)

    def get_timesteps(self, images: Tensor) -> Tensor:
        """One time per image, ``(B,)``, in (0, num_train_timesteps]."""
        share = 1 - torch.rand(len(images), generator=self.draws.generator)
        begins = torch.rand(len(images), generator=self.draws.generator) < self.first
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
        weight = 1 / (FLOOR + (anchor - clean).square().mean((1, 2, 3), keepdim=True))
        target = torch.cat([clean, weight.expand(-1, 1, *clean.shape[2:])], 1)
        shown = [anchor]
        if "source" in batchdata:
            blind = torch.rand(len(anchor), 1, 1, 1, generator=self.draws.generator) < self.blind
            shown.append(torch.where(blind, anchor, 2 * batchdata["source"] - 1))
        moved = [part.to(device, non_blocking=non_blocking) for part in (x, target, times, *shown)]
        return moved[0], moved[1], tuple(moved[2:]), {}


class PrepareRefinement:
    """Input the mixed photo, target the clean one, the source as second argument where the batch has it."""

    def __call__(
        self,
        batchdata: Mapping[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **_: Any,
    ) -> Prepared:
        names = ("noisy", "clean", *(name for name in ("source",) if name in batchdata))
        anchor, clean, *source = (batchdata[name].to(device, non_blocking=non_blocking) for name in names)
        return anchor, clean, tuple(source), {}


class FlowLoss(nn.Module):
    """Squared error relative to the anchor's, plus ``perceptual`` times the distance of VGG19 features.

    The first term is the flow-matching loss weighted by ``s**2`` over the anchor's error: the mean of relative errors,
    as decibels count them. The second is the distance of :func:`monai_sasm.losses.features.feature_distance`, between
    0 and about 1. Both are of the estimate of ``x_0``.

    Args:
        perceptual: weight of the feature distance; 0 needs no VGG19.
        reduced: run the feature network in bfloat16.
    """

    def __init__(self, perceptual: float = 2.0, reduced: bool = False) -> None:
        super().__init__()
        if perceptual < 0:
            raise ValueError(f"perceptual must not be negative, got {perceptual}")
        self.perceptual, self.reduced = perceptual, reduced
        self.features = Vgg19Features() if perceptual else None

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``prediction`` ``(B, 3, H, W)`` in [-1, 1]; ``target`` ``(B, 4, H, W)``, the weight last."""
        clean, weight = target[:, :3], target[:, 3:]
        relative = (weight * (prediction - clean).square()).mean()
        if self.features is None:
            return relative
        features = self.features.to(prediction.device)
        with torch.autocast(prediction.device.type, dtype=torch.bfloat16, enabled=self.reduced):
            ours = features(_unit(prediction))
            with torch.no_grad():
                truth = features(_unit(clean))
        distance = feature_distance([part.float() for part in ours], [part.float() for part in truth])
        return relative + self.perceptual * distance.mean()


def _unit(image: Tensor) -> Tensor:
    return ((image + 1) / 2).contiguous(memory_format=torch.channels_last)
