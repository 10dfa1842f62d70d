"""Pairs of clean slices and their degraded versions, made once from whole slices and held in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.neighbours import between

Slice = NDArray[np.float32]


def degraded_pairs(
    slices: Sequence[Slice],
    degradations: Sequence[DegradationModel],
    min_size: int = 1,
    seed: int = 0,
    neighbours: int = 0,
    alone: float = 0.1,
) -> list[tuple[Slice, ...]]:
    """Pairs ``(clean, degraded)`` of slices ``(C, H, W)``, each slice with each degradation once.

    For what acts on a slice as a whole: a crop of a truncated k-space is not the truncated k-space of a crop.

    Args:
        slices: in working scale.
        degradations: with their strength, for example truncation by 2 and by 4.
        min_size: leave out slices narrower than this, in pixels.
        seed: of the draws.
        neighbours: on each side of the degraded slice, which is then ``(2 n + 1, H, W)``; the clean one is
            ``(1, H, W)``. Slices come with their neighbours, see :func:`monai_sasm.training.images.slices`, or alone.
        alone: share of the slices whose neighbours are withheld, so that a network learns to do without.

    Raises:
        ValueError: no slice is large enough.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs: list[tuple[Slice, ...]] = []
    for clean in (image for image in slices if min(image.shape[-2:]) >= min_size):
        batch = torch.from_numpy(np.ascontiguousarray(clean))[None]
        channels, height, width = clean.shape
        for degradation in degradations:
            params = degradation.draw((1, channels, height, width), generator)
            degraded = degradation.apply(batch, params)
            if neighbours and float(torch.rand((), generator=generator)) < alone:
                degraded = between(degraded, 0)
            if neighbours:
                degraded, target = between(degraded, neighbours), between(batch, 0)[0].numpy()
            pairs.append((target if neighbours else clean, degraded[0].numpy()))
    if not pairs:
        raise ValueError(f"no slice of at least {min_size} pixels each way among {len(slices)}")
    return pairs
