r"""The noise of magnitude images: less of it where they are dark.

The magnitude :math:`|A + n_1 + i n_2|` of a signal :math:`A` with Gaussian noise of standard deviation
:math:`\sigma` in both parts has the variance :math:`\xi(A / \sigma) \sigma^2` with

.. math:: \xi(\theta) = 2 + \theta^2 - \tfrac{\pi}{8} e^{-\theta^2 / 2}
          \left[(2 + \theta^2) I_0(\theta^2 / 4) + \theta^2 I_1(\theta^2 / 4)\right]^2,

:math:`2 - \pi / 2` in the background and towards 1 in bright tissue (Koay and Basser 2006, Journal of Magnetic
Resonance 179, equation 18).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RAYLEIGH = 2 - math.pi / 2
"""Variance where there is no signal, for a noise variance of 1."""
_STRONG = 400.0  # (A / sigma)^2 from which the formula is a difference of large numbers, and within 0.2 % of 1


def magnitude_variance(mean_square: Tensor) -> Tensor:
    r"""Variance :math:`\xi` of a magnitude whose mean square is :math:`\theta^2 + 2`, for a noise variance of 1.

    Args:
        mean_square: any shape, over :math:`\sigma^2`; below 2 it is taken for background.

    Returns:
        Same shape, between :data:`RAYLEIGH` and 1, over :math:`\sigma^2`.
    """
    squared = (mean_square - 2).clamp(0, _STRONG)  # theta^2
    quarter = squared / 4
    bessel = (2 + squared) * torch.special.i0e(quarter) + squared * torch.special.i1e(quarter)
    return (2 + squared - math.pi / 8 * bessel**2).clamp(RAYLEIGH, 1)
