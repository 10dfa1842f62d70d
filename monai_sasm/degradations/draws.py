"""Random numbers that several degradations draw."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def uniform(bounds: tuple[float, ...], share: Tensor) -> Tensor:
    """``share``, uniform in [0, 1], as values between two bounds; same shape."""
    return bounds[0] + (bounds[1] - bounds[0]) * share


def log_uniform(bounds: tuple[float, ...], share: Tensor) -> Tensor:
    """``share``, uniform in [0, 1], as values between two positive bounds whose logarithms are uniform; same shape."""
    low, high = (math.log(bound) for bound in bounds)
    return torch.exp(low + (high - low) * share)


def draw_seed(generator: torch.Generator) -> int:
    """The seed of a noise field, to be kept with the other parameters of a draw."""
    return int(torch.randint(2**31, (1,), generator=generator))
