"""Overlapping tiles whose results fade into each other, for networks that see further than a halo.

:mod:`monai_sasm.dispatch` cuts seams hard and needs no blending, because its networks are deterministic and look no
further than the halo. A generative network draws texture and looks across the whole tile.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def blended_tiles(image: Tensor, run: Callable[[Tensor], Tensor], tile: int, overlap: int, scale: int = 1) -> Tensor:
    """``run`` on tiles of ``image``, each fading linearly into its neighbours over ``overlap`` pixels.

    Where tiles agree their blend is what they agree on. An image no larger than a tile is handed over as it is.

    Args:
        image: ``(B, C, H, W)``.
        run: tile ``(B, C, h, w)`` -> ``(B, C', scale * h, scale * w)``; ``h`` is ``tile``, or ``H`` if that is smaller.
        tile: side of a tile in pixels.
        overlap: pixels shared by neighbours, less than ``tile``; where the last tile would stand out, more.
        scale: enlargement by ``run``.

    Returns:
        ``(B, C', scale * H, scale * W)``.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be at least 0 and less than the tile, got tile={tile} and overlap={overlap}")
    height, width = image.shape[-2:]
    if height <= tile and width <= tile:
        return run(image)
    total = weights = image.new_zeros(())
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            result = run(image[..., top : top + tile, left : left + tile])
            fade = _fade(result.shape[-2], scale * overlap)[:, None] * _fade(result.shape[-1], scale * overlap)
            if total.ndim == 0:
                total = result.new_zeros(*result.shape[:2], scale * height, scale * width)
                weights = result.new_zeros(scale * height, scale * width)
            rows = slice(scale * top, scale * top + result.shape[-2])
            columns = slice(scale * left, scale * left + result.shape[-1])
            total[..., rows, columns] += result * fade.to(result)
            weights[rows, columns] += fade.to(weights)
    return total / weights


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """First pixels of tiles that cover ``length``; the last one ends with it."""
    last = max(length - tile, 0)
    return [*range(0, last, tile - overlap), last]


def _fade(length: int, overlap: int) -> Tensor:
    """Weights that rise from both ends over ``overlap`` pixels and are 1 between."""
    position = torch.arange(length) + 0.5
    return (torch.minimum(position, length - position) / max(overlap, 1)).clamp(max=1)
