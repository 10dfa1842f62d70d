"""The smoothest guess at what is in a hole: the pixels around it, from as near as there are some."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.types import ImageBatch


def fill_holes(image: ImageBatch, known: Tensor) -> ImageBatch:
    """Fill holes by push and pull over a pyramid (Gortler et al. 1996, "The Lumigraph", section 3.4).

    Going up, each level holds the mean of the known pixels of 2 x 2 blocks; coming down, pixels without any known
    pixel below them take the bilinearly enlarged coarser level.

    Args:
        image: ``(B, C, H, W)``; values in holes do not matter, not even if they are not finite.
        known: ``(B, 1, H, W)``, 1 where measured, 0 in holes.

    Returns:
        ``image`` with its holes filled, known pixels untouched; 0.5 everywhere in an image without known pixels.
    """
    measured = torch.where(known > 0, image, torch.zeros_like(image))
    filled = _pull(measured, (known > 0).to(image.dtype))
    return torch.where(known > 0, image, filled)


def _pull(value: Tensor, weight: Tensor) -> Tensor:
    """``value`` where ``weight`` is 1, blended with the coarser level where it is less; all finite."""
    height, width = value.shape[-2:]
    if height == width == 1:
        return torch.where(weight > 0, value, torch.full_like(value, 0.5))
    padding = (0, width % 2, 0, height % 2)
    share = F.avg_pool2d(F.pad(weight, padding), 2)
    mean = F.avg_pool2d(F.pad(value * weight, padding), 2) / share.clamp_min(torch.finfo(value.dtype).tiny)
    coarse = _pull(mean, (4 * share).clamp_max(1))
    enlarged = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    return weight * value + (1 - weight) * enlarged
