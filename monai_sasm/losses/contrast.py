"""A loss that asks a restorer for the contrast of small, faint lesions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ContrastGainLoss(nn.Module):
    r"""Error with and without lesions, and the loss of the lesions' contrast.

    With input ``y``, target ``x``, network ``E`` and lesions ``s``, means over pixels:

    .. math:: \tfrac12 (|E(y) - x| + |E(y + s) - (x + s)|) + \lambda |E(y + s) - E(y) - s|

    The last term is a finite difference of the network's Jacobian along lesion-like directions. It holds no noise: the
    answer to ``s`` is compared with ``s`` itself, however noisy ``y`` and ``x`` are. Absolute error alone settles on
    erasing what is small and faint, because noise of that size is more frequent than lesions are.

    Where the target is NaN it is not known, and no error is counted; the means are over all pixels.

    Args:
        gain: lambda; 0 is the absolute error over both halves.
        l2: weight of the mean squared error over both halves, beside the absolute one.
    """

    def __init__(self, gain: float = 4.0, l2: float = 0.0) -> None:
        super().__init__()
        if min(gain, l2) < 0:
            raise ValueError(f"weights must not be negative, got gain={gain}, l2={l2}")
        self.gain, self.l2 = gain, l2

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """``(2 B, C, H, W)`` each: images without lesions in the first half, the same with lesions in the second, as
        :class:`monai_sasm.training.contrast.PrepareWithLesions` makes them.
        """
        if len(prediction) % 2 or prediction.shape != target.shape:
            raise ValueError(
                "expected the same images without and with lesions, (2 B, C, H, W), "
                f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
            )
        target = torch.where(target.isnan(), prediction.detach(), target)
        answers, asked = ((half[1] - half[0]) for half in (prediction.chunk(2), target.chunk(2)))
        error = prediction - target
        plain = error.abs().mean() + (self.l2 * error.square().mean() if self.l2 else 0.0)
        return plain + self.gain * (answers - asked).abs().mean()
