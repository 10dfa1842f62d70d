"""Losses that MONAI lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_sasm.features import Vgg19Features


class ChangeWeightedL1(nn.Module):
    r"""Mean absolute error with a weight per pixel: :math:`\sum w |y - x| / \sum w`.

    Where most pixels need no change, plain L1 is smallest for a network that does nothing; weighting the pixels that
    do need one keeps training from settling there. The weight is the last channel of the target, as put there by
    :class:`monai_sasm.training.batches.PrepareDegraded`; a target without it is weighted evenly.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``prediction`` ``(B, C, H, W)``; ``target`` ``(B, C, H, W)`` or ``(B, C + 1, H, W)`` with weights."""
        channels = prediction.shape[1]
        if target.shape[1] not in (channels, channels + 1):
            raise ValueError(
                f"target must have {channels} channels, or {channels + 1} with weights last, got {target.shape[1]}"
            )
        error = (prediction - target[:, :channels]).abs()
        if target.shape[1] == channels:
            return error.mean()
        weight = target[:, channels:].expand_as(error)
        return torch.sum(weight * error) / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


class PerceptualMSE(nn.Module):
    r"""Mean squared error plus ``perceptual`` times the mean squared error of VGG19 features.

    The features (:class:`monai_sasm.features.Vgg19Features`) are normalised per pixel, so the second term does not
    depend on their scale; it keeps fine texture, which the first alone averages away (Johnson et al. 2016).

    Args:
        perceptual: weight of the feature term; 0 leaves plain MSE and needs no VGG19.
        low: value of black in the images; 0 or -1.
        reduced: run the feature network in bfloat16.
    """

    def __init__(self, perceptual: float = 0.1, low: float = -1.0, reduced: bool = False) -> None:
        super().__init__()
        if perceptual < 0:
            raise ValueError(f"perceptual must not be negative, got {perceptual}")
        self.perceptual, self.low, self.reduced = perceptual, low, reduced
        self.features = Vgg19Features() if perceptual else None

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Photos ``(B, 3, H, W)``, in [low, 1]."""
        squared = (prediction - target).square().mean()
        if self.features is None:
            return squared
        features = self.features.to(prediction.device)
        with torch.autocast(prediction.device.type, dtype=torch.bfloat16, enabled=self.reduced):
            ours = features(self._unit(prediction))
            with torch.no_grad():
                truth = features(self._unit(target))
        perceptual = squared.new_zeros(())
        for x, y in zip(ours, truth, strict=True):
            perceptual = perceptual + (_normalised(x) - _normalised(y)).square().mean()
        return squared + self.perceptual * perceptual

    def _unit(self, image: Tensor) -> Tensor:
        return ((image - self.low) / (1 - self.low)).contiguous(memory_format=torch.channels_last)


def _normalised(features: Tensor) -> Tensor:
    return features.float() / (features.float().norm(dim=1, keepdim=True) + 1e-8)
