r"""Rectified flow as pure functions: straight lines from a source to the clean image, and Euler steps along them.

:math:`x_s = (1 - s) x_0 + s x_1` leads from the source :math:`x_1` (noise, or a restored image with a little noise) at
s = 1 to the clean image :math:`x_0` at s = 0 (Liu et al. 2023). MONAI's ``RFlowScheduler`` writes s as
``timesteps / num_train_timesteps`` and the velocity as clean minus source; so do these functions, and
``tests/diffusion/test_flow.py`` compares them. They differ in what MONAI's ``step`` has no room for: times per image, a
constraint on each estimate, and an exact last step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Estimate = Callable[[Tensor, Tensor], Tensor]
"""``(x_s (B, C, H, W), s (B,)) -> x_0``: what the network takes for the clean image, everything else bound."""


def interpolate(clean: Tensor, source: Tensor, s: Tensor) -> Tensor:
    """The point ``x_s`` ``(B, ...)`` of the line from ``clean`` (s = 0) to ``source`` (s = 1); ``s`` is ``(B,)``."""
    share = _per_image(s, clean)
    return (1 - share) * clean + share * source


def even_shares(steps: int, start: float = 1.0) -> Tensor:
    """Times ``(steps,)`` evenly spaced from ``start`` down to one stride above 0: 1, 0.75, 0.5, 0.25 for four."""
    if steps < 1 or not 0 < start <= 1:
        raise ValueError(f"a flow needs at least 1 step and a start in (0, 1], got {steps} and {start}")
    return start * (1 - torch.arange(steps, dtype=torch.double) / steps).float()


def euler(
    estimate: Estimate,
    x: Tensor,
    shares: Tensor,
    constrain: Callable[[Tensor], Tensor] | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Euler's method along the flow, the last step going to the clean image.

    A step from s to s' is :math:`x + (s - s') v` with :math:`v = (x_0 - x) / s`, hence a mean of x and the estimate.

    Args:
        estimate: see :data:`Estimate`; for a network of velocity prediction ``x + s v``.
        x: ``x_s`` ``(B, C, H, W)`` at the first of ``shares``.
        shares: falling times ``(steps,)`` in (0, 1], see :func:`even_shares`.
        constrain: applied to every estimate of ``x_0``: measured data put back, low frequencies pinned.
        observe: called with each new ``x_s`` and estimate of ``x_0``.

    Returns:
        The estimate of ``x_0`` of the last step.
    """
    if len(shares) == 0 or not bool((shares > 0).all()) or bool((shares.diff() >= 0).any()):
        raise ValueError(f"shares must be positive and fall, got {shares.tolist()}")
    clean = x
    for index, s in enumerate(shares.tolist()):
        clean = estimate(x, torch.full((len(x),), s, device=x.device, dtype=x.dtype))
        clean = clean if constrain is None else constrain(clean)
        if index + 1 < len(shares):
            left = float(shares[index + 1]) / s
            x = left * x + (1 - left) * clean
        if observe is not None:
            observe(x, clean)
    return clean


def _per_image(s: Tensor, like: Tensor) -> Tensor:
    return s.to(like).view(-1, *[1] * (like.ndim - 1))
