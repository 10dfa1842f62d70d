"""Losses that MONAI lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
