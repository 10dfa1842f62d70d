"""Low frequencies pinned to a measured image: a generative step may draw texture, not shift brightness or colour."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def lowpass(image: Tensor, radius: float) -> Tensor:
    """Gaussian blur of ``image`` ``(B, C, H, W)`` with standard deviation ``radius`` pixels.

    At the border the mean is taken over the pixels there are. Repeating the border instead would give its noise the
    weight of all the pixels beyond. Computed in float32 at least, also under autocast: 16 bits are too few for a sum
    over thousands of pixels, and CPUs take minutes for such kernels in bfloat16.
    """
    if not radius > 0:
        raise ValueError(f"radius must be positive, got {radius}")
    wide = image.to(torch.promote_types(image.dtype, torch.float32))
    channels = wide.shape[1]
    down = _kernel(radius, wide.shape[-2], wide)[None, None, :, None]
    across = _kernel(radius, wide.shape[-1], wide)[None, None, None, :]
    rows, columns = (torch.ones_like(wide[:1, :1, :, :1]), torch.ones_like(wide[:1, :1, :1, :]))
    with torch.autocast(image.device.type, enabled=False):
        blurred = F.conv2d(wide, down.expand(channels, -1, -1, -1), padding="same", groups=channels)
        blurred = F.conv2d(blurred, across.expand(channels, -1, -1, -1), padding="same", groups=channels)
        blurred = blurred / F.conv2d(rows, down, padding="same") / F.conv2d(columns, across, padding="same")
    return blurred.to(image.dtype)


def _kernel(radius: float, side: int, like: Tensor) -> Tensor:
    """Gaussian over 2 standard deviations each way, no wider than an image of ``side`` pixels needs; sum 1."""
    reach = min(math.ceil(2 * radius), side - 1)
    offsets = torch.arange(-reach, reach + 1, device=like.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / radius) ** 2)
    return (kernel / kernel.sum()).to(like.dtype)


def pin_low_frequencies(image: Tensor, anchor: Tensor, radius: float) -> Tensor:
    """``image`` with the low frequencies of ``anchor``: ``image + lowpass(anchor - image)``.

    Independent noise of standard deviation s in the anchor comes back as 0.31 s / radius only, twice that in a corner:
    0.5 grey levels of 25 at radius 16.
    """
    return image + lowpass(anchor - image, radius)
