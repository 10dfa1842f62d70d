"""Losses that MONAI lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monai_sasm.losses.features import Vgg19Features


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


class RestorationLoss(nn.Module):
    r"""Squared and absolute error, plus ``perceptual`` times the mean squared error of VGG19 features.

    The features (:class:`monai_sasm.losses.features.Vgg19Features`) are normalised per pixel, so the last term does not
    depend on their scale; it keeps fine texture, which the others alone average away (Johnson et al. 2016).

    Args:
        perceptual: weight of the feature term; 0 needs no VGG19.
        low: value of black in the images; 0 or -1.
        reduced: run the feature network in bfloat16.
        l2: weight of the mean squared error.
        l1: weight of the mean absolute error.
    """

    def __init__(
        self, perceptual: float = 0.1, low: float = -1.0, reduced: bool = False, l2: float = 1.0, l1: float = 0.0
    ) -> None:
        super().__init__()
        if min(perceptual, l2, l1) < 0 or not perceptual + l2 + l1:
            raise ValueError(
                f"weights must not be negative nor all zero, got perceptual={perceptual}, l2={l2}, l1={l1}"
            )
        self.perceptual, self.low, self.reduced, self.l2, self.l1 = perceptual, low, reduced, l2, l1
        self.features = Vgg19Features() if perceptual else None

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Images ``(B, 1 or 3, H, W)``, in [low, 1]; grey ones are shown to VGG19 as grey photos."""
        error = prediction - target
        loss = self.l2 * error.square().mean() + self.l1 * error.abs().mean()
        if self.features is None:
            return loss
        features = self.features.to(prediction.device)
        with torch.autocast(prediction.device.type, dtype=torch.bfloat16, enabled=self.reduced):
            ours = features(self._photo(prediction))
            with torch.no_grad():
                truth = features(self._photo(target))
        perceptual = loss.new_zeros(())
        for x, y in zip(ours, truth, strict=True):
            perceptual = perceptual + (_normalised(x) - _normalised(y)).square().mean()
        return loss + self.perceptual * perceptual

    def _photo(self, image: Tensor) -> Tensor:
        unit = (image - self.low) / (1 - self.low)
        return unit.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def _normalised(features: Tensor) -> Tensor:
    return features.float() / (features.float().norm(dim=1, keepdim=True) + 1e-8)
