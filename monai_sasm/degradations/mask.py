"""Random smooth partitions of an image: where which fault goes when one picture has several.

Region ``k`` wins where its smooth random field is the largest. Fields are cubic interpolations of a coarse grid of
normal values, so the same seed gives the same regions at every image size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

BALANCING_STEPS = 40  # enough for shares within a few per cent of equal


def region_labels(
    shape: tuple[int, int, int, int], regions: int, generator: torch.Generator, scale: float = 0.4
) -> Tensor:
    """Split images into regions of about equal area.

    Args:
        shape: (B, C, H, W) of the images; C is not used.
        regions: number of regions K, at least 1.
        generator: source of the random fields, on the CPU.
        scale: typical width of a region's lobes as a fraction of the image's sides, in (0, 1].

    Returns:
        Labels 0 to K - 1, (B, 1, H, W), int64.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.mask import region_labels
        >>> labels = region_labels((1, 3, 64, 96), regions=3, generator=torch.Generator().manual_seed(0))
        >>> labels.unique().tolist()
        [0, 1, 2]
    """
    return _fields(shape, regions, generator, scale).argmax(dim=1, keepdim=True)


def region_weights(
    shape: tuple[int, int, int, int],
    regions: int,
    generator: torch.Generator,
    scale: float = 0.4,
    softness: float = 0.1,
) -> Tensor:
    """Same regions as :func:`region_labels`, with borders that fade into one another.

    Args:
        shape: (B, C, H, W) of the images; C is not used.
        regions: number of regions K, at least 1.
        generator: source of the random fields, on the CPU.
        scale: typical width of a region's lobes as a fraction of the image's sides, in (0, 1].
        softness: width of the borders in units of the fields' standard deviation, positive; towards 0 they turn hard.

    Returns:
        Weights (B, K, H, W) in [0, 1] that sum to 1 over K.
    """
    if not softness > 0:
        raise ValueError(f"softness must be positive, got {softness}; use region_labels for hard borders")
    return torch.softmax(_fields(shape, regions, generator, scale) / softness, dim=1)


def _fields(shape: tuple[int, int, int, int], regions: int, generator: torch.Generator, scale: float) -> Tensor:
    """Smooth fields (B, K, H, W) whose argmax has about equal shares."""
    if regions < 1:
        raise ValueError(f"regions must be at least 1, got {regions}")
    if not 0 < scale <= 1:
        raise ValueError(f"scale is a fraction of the image's sides in (0, 1], got {scale}")
    cells = math.ceil(1 / scale) + 2
    grid = torch.randn(shape[0], regions, cells, cells, generator=generator)
    # Balanced on a fixed grid, not on the image: the bias must not depend on the image's size.
    small = F.interpolate(grid, size=(64, 64), mode="bicubic", align_corners=True)
    bias = torch.zeros(shape[0], regions, 1, 1)
    step = 1.0
    for _ in range(BALANCING_STEPS):
        winner = (small + bias).argmax(dim=1)
        share = F.one_hot(winner, regions).float().mean(dim=(1, 2))[:, :, None, None]
        bias = bias + step * (1 / regions - share)
        step = max(0.9 * step, 0.1)
    return F.interpolate(grid, size=shape[2:], mode="bicubic", align_corners=True) + bias
