"""Samplers as pure functions: from ``x_t`` to ``x_0`` in any number of steps, from any starting time.

MONAI's ``DDIMScheduler.step`` walks a fixed stride from pure noise; restoration starts at the noise level of its input,
which may differ per image. On MONAI's own grid both agree (``tests/diffusion/test_sampling.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from monai_sasm.diffusion.denoising import level

Denoise = Callable[[Tensor, Tensor], Tensor]
"""``(x_t (B, C, H, W), t (B,)) -> x_0``: :meth:`Denoiser.denoise` with label and condition bound."""


def spaced_times(start: Tensor, steps: int) -> Tensor:
    """Evenly spaced times ``(steps, B)`` that begin at ``start`` ``(B,)`` and stop one stride short of the clean image.

    Where ``start`` has fewer than ``steps`` levels below it, times repeat; a repeated time changes nothing.
    """
    if steps < 1:
        raise ValueError(f"sampling needs at least 1 step, got {steps}")
    share = (1 - torch.arange(steps, dtype=torch.double) / steps)[:, None]
    first = start.cpu()  # devices of Apple have no float64
    return torch.where(first < 0, -1, (share * (first + 1)).round() - 1).long().clamp_min(-1).to(start.device)


def ddim(
    denoise: Denoise,
    x: Tensor,
    times: Tensor,
    schedule: Tensor,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    constrain: Callable[[Tensor], Tensor] | None = None,
    observe: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16), the last step going to ``x_0``.

    Args:
        denoise: see :data:`Denoise`.
        x: ``x_t`` ``(B, C, H, W)`` at the first of ``times``.
        times: falling time indices ``(steps,)`` or ``(steps, B)``; -1 leaves an image as it is.
        schedule: ``alphas_cumprod``.
        eta: 0 is deterministic, 1 the variance of ancestral sampling (DDPM).
        generator: source of the noise when ``eta`` is positive.
        constrain: applied to every estimate of ``x_0``: measured data put back, say.
        observe: called with each new ``x_t`` and estimate of ``x_0``.

    Returns:
        The estimate of ``x_0`` of the last step.
    """
    steps = times if times.ndim == 2 else times[:, None].expand(-1, len(x))
    clean = x
    for index, t in enumerate(steps):
        estimate = denoise(x, t.clamp_min(0))
        estimate = estimate if constrain is None else constrain(estimate)
        clean = torch.where(_per_image(t < 0, x), clean, estimate)
        if index + 1 < len(steps):
            x = _step(x, clean, t, steps[index + 1], schedule, eta, generator)
        if observe is not None:
            observe(x, clean)
    return clean


def _step(
    x: Tensor,
    clean: Tensor,
    t: Tensor,
    following: Tensor,
    schedule: Tensor,
    eta: float,
    generator: torch.Generator | None,
) -> Tensor:
    """``x`` at the following time: the estimate, plus what is left of the present noise, plus fresh noise."""
    now, then = level(schedule, t, x), level(schedule, following, x)
    tiny = torch.finfo(now.dtype).tiny
    epsilon = (x - now.sqrt() * clean) / (1 - now).sqrt().clamp_min(tiny)
    fresh = eta * ((1 - then) / (1 - now).clamp_min(tiny) * (1 - now / then)).clamp_min(0).sqrt()
    moved = then.sqrt() * clean + (1 - then - fresh**2).clamp_min(0).sqrt() * epsilon
    if eta:
        moved = moved + fresh * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.where(_per_image(t == following, x), x, moved.to(x.dtype))


def _per_image(chosen: Tensor, like: Tensor) -> Tensor:
    return chosen.to(like.device).view(-1, *[1] * (like.ndim - 1))
