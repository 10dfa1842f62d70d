"""Fewer pixels: antialiased bicubic downsampling, the usual model of a low-resolution photo.

The kernel is Keys' cubic with a = -1/2 (Keys 1981, IEEE TASSP 29(6)), stretched by the factor when downsampling, as in
MATLAB's ``imresize`` and in Pillow. At the image border the kernel is cut off and its weights made to sum to 1 again,
as Pillow does; MATLAB mirrors the image instead, so the outermost ``2 * factor`` pixels differ from its results.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monai_sasm.types import ImageBatch


def downsample(image: ImageBatch, factor: int) -> ImageBatch:
    """``image`` ``(B, C, H, W)`` at ``(ceil(H / factor), ceil(W / factor))``.

    Sides that are no multiple of ``factor`` are first extended to one by repeating the last row and column.
    """
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    bottom, right = -image.shape[-2] % factor, -image.shape[-1] % factor
    whole = F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image
    return _resized(whole, whole.shape[-2] // factor, whole.shape[-1] // factor)


def upsample(image: ImageBatch, factor: int) -> ImageBatch:
    """``image`` ``(B, C, H, W)`` at ``(H * factor, W * factor)``, bicubic."""
    if factor < 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    return _resized(image, image.shape[-2] * factor, image.shape[-1] * factor)


def _resized(image: ImageBatch, height: int, width: int) -> ImageBatch:
    if image.shape[-2:] == (height, width):
        return image
    exact = image if image.dtype in (torch.float32, torch.float64) else image.float()
    # antialias also chooses a = -1/2; without it torch takes -3/4
    return F.interpolate(exact, size=(height, width), mode="bicubic", antialias=True).to(image.dtype)
