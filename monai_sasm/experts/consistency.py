"""What was measured stays: guards that keep a generative network from redrawing what the scanner has seen.

A guard is called as ``guard(estimate, image)`` with every estimate of the restored image on the way, and once with the
last: both ``(B, C, H, W)`` in working scale, the result is the estimate with measured data put back.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.degradations.kspace import to_image, to_kspace
from monai_sasm.diffusion.pinning import pin_low_frequencies

Guard = Callable[[Tensor, Tensor], Tensor]

DROP = 2.3  # natural logarithm of energy: so steep is only the end of sampling (anatomy alone falls by 1 to 1.5)
SMALLEST = 6  # one line in so many is sampled at least; nearer to the centre anatomy falls as steeply


def apply_guard(estimate: Tensor, image: Tensor, guard: Guard | None) -> Tensor:
    """``estimate``, with measured data put back if there is a guard."""
    return estimate if guard is None else guard(estimate, image)


class MeasuredKspace:
    r"""Keeps the k-space samples of a magnetic resonance image that was reconstructed by zero filling.

    :math:`\hat x \leftarrow F^{-1}(M F y + (1 - M) F \hat x)`, :math:`y` the image, with the mask M of its samples read
    off :math:`y` itself, see :func:`sampled`. A fully sampled image is left to the network. The magnitude that
    :math:`y` is has lost its phase; for images with little noise and phase that is small.

    Args:
        strength: share of the measured samples that is put back, 0 to 1; what is not lets the network denoise them.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {strength}")
        self.strength = strength

    def __call__(self, estimate: Tensor, image: Tensor) -> Tensor:
        """See :data:`Guard`."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return _kept_in_real_numbers(estimate, image, self.strength)
        mask = self.strength * sampled(image)
        if not bool(mask.any()):
            return estimate
        kept = mask * to_kspace(image.float()) + (1 - mask) * to_kspace(estimate.float())
        return to_image(kept).real.to(estimate.dtype)


class PinnedHu:
    """Keeps the coarse Hounsfield units: tissue may lose noise, not change its density.

    Args:
        sigma: standard deviation, in pixels, of the Gaussian low-pass that is kept.
    """

    def __init__(self, sigma: float = 6.0) -> None:
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        self.sigma = sigma

    def __call__(self, estimate: Tensor, image: Tensor) -> Tensor:
        """See :data:`Guard`."""
        return pin_low_frequencies(estimate, image, self.sigma)


def sampled(image: Tensor) -> Tensor:
    """Mask ``(B, 1, H, W)`` of the k-space samples that zero filling kept; zeros for a fully sampled image."""
    energy = to_kspace(image.float()).abs().square().mean(1)  # (B, H, W)
    rows, columns = (_centre(energy.mean(axis)) for axis in (2, 1))
    mask = rows[:, None, :, None] & columns[:, None, None, :]
    complete = mask.flatten(1).all(1).view(-1, 1, 1, 1)
    return (mask & ~complete).to(image.dtype)


def _centre(profile: Tensor) -> Tensor:
    """Lines ``(B, N)`` inside the steepest fall of the energy per line ``(B, N)``; all lines if none is steep."""
    count = profile.shape[1]
    middle, reach = count // 2, (count - 1) // 2
    if reach < 3:
        return torch.ones_like(profile, dtype=torch.bool)
    out = torch.arange(reach + 1, device=profile.device)
    levels = ((profile[:, middle + out] + profile[:, middle - out]) / 2).clamp_min(1e-12).log()  # by distance
    inside = (levels[:, :-1] + torch.cat([levels[:, :1], levels[:, :-2]], 1)) / 2
    beyond = F.max_pool1d(F.pad(levels[:, 1:], (0, 2), value=-torch.inf)[:, None], 3, stride=1)[:, 0]
    nearest = -(-count // (2 * SMALLEST))
    fall = (inside - beyond).masked_fill(out[:-1] < nearest, -torch.inf)
    steepest, last = fall.max(1, keepdim=True)
    distance = (torch.arange(count, device=profile.device) - middle).abs()
    return (distance <= last) | (steepest < DROP)


def _kept_in_real_numbers(estimate: Tensor, image: Tensor, strength: float) -> Tensor:
    """:class:`MeasuredKspace` without branches and complex numbers, which exported graphs cannot have.

    The mask is separable and symmetric about the zero frequency, so that keeping its samples is a real low-pass along
    each axis; both transforms are products with cosines and sines.
    """
    image, wide = image.float(), estimate.float()
    difference, keep = image - wide, []
    for axis in (-2, -1):
        turned = image.transpose(axis, -2)
        cosine, sine = _waves(turned)
        energy = (cosine @ turned).square() + (sine @ turned).square()  # (B, C, N, ...), by Parseval also over columns
        keep.append(_centre(energy.mean((1, 3))))
        inside = keep[-1][:, None, :, None]
        turned = difference.transpose(axis, -2)
        low = cosine.T @ (inside * (cosine @ turned)) + sine.T @ (inside * (sine @ turned))
        difference = low.transpose(axis, -2)
    truncated = ~(keep[0].all(1) & keep[1].all(1)).view(-1, 1, 1, 1)
    return (wide + strength * truncated * difference).to(estimate.dtype)


def _waves(image: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``(N, N)`` of the centred orthonormal Fourier transform along the rows' axis, N long."""
    place = torch.arange(image.shape[-2], device=image.device)
    count = place[-1:] + 1  # a tensor: the exporter takes no sizes into formulas
    turns = (place - count // 2)[:, None] * place % count  # without the whole ones, which floats could not hold
    phase = 2 * math.pi * (turns / count)
    return torch.cos(phase) / count.sqrt(), torch.sin(phase) / count.sqrt()
