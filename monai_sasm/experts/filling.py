"""The smoothest guess at what is in a hole: a membrane stretched over it, held by the pixels around."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.types import ImageBatch

ROUNDS = 32  # of relaxation on each level of the pyramid


def fill_holes(image: ImageBatch, known: Tensor) -> ImageBatch:
    r"""Fill holes with the solution of Laplace's equation, :math:`\Delta u = 0`, known pixels being its border.

    Each pixel of a hole becomes the mean of its four neighbours, so that nothing rises or dips where nothing was
    measured. In the squared error that beats the biharmonic :math:`\Delta^2 u = 0`, which carries slopes into wide
    holes. Solved from coarse to fine (cascadic multigrid, Bornemann & Deuflhard 1996): each level of a pyramid holds
    the means of the known pixels of 2 x 2 blocks, starts from the coarser solution and is relaxed :data:`ROUNDS` times.

    Args:
        image: ``(B, C, H, W)``; values in holes do not matter, not even if they are not finite.
        known: ``(B, 1, H, W)``, 1 where measured, 0 in holes.

    Returns:
        ``image`` with its holes filled, known pixels untouched; 0.5 everywhere in an image without known pixels.
    """
    measured = torch.where(known > 0, image, torch.zeros_like(image))
    return torch.where(known > 0, image, _solve(measured, known > 0))


def _solve(value: Tensor, known: Tensor) -> Tensor:
    """``value`` where it is known, the membrane elsewhere; all finite."""
    height, width = value.shape[-2:]
    if bool(known.all()):
        return value
    if height == width == 1:
        return torch.where(known, value, torch.full_like(value, 0.5))
    padding = (0, width % 2, 0, height % 2)
    share = F.avg_pool2d(F.pad(known.to(value.dtype), padding), 2)
    mean = F.avg_pool2d(F.pad(value, padding), 2) / share.clamp_min(torch.finfo(value.dtype).tiny)
    coarse = _solve(mean, share > 0)
    start = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)[..., :height, :width]
    membrane = torch.where(known, value, start)
    for _ in range(ROUNDS):
        membrane = torch.where(known, value, _mean_of_neighbours(membrane))
    return membrane


def _mean_of_neighbours(x: Tensor) -> Tensor:
    """Mean of the pixels above, below, left and right; beyond the image's border it continues as it is."""
    framed = F.pad(x, (1, 1, 1, 1), mode="replicate")
    rows, columns = framed[..., 1:-1], framed[..., 1:-1, :]
    return (rows[..., :-2, :] + rows[..., 2:, :] + columns[..., :-2] + columns[..., 2:]) / 4
