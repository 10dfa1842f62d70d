"""Pairs of clean slices and their degraded versions, made once from whole slices and held in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.degradation import DegradationModel

Slice = NDArray[np.float32]


def degraded_pairs(
    slices: Sequence[Slice], degradations: Sequence[DegradationModel], min_size: int = 1, seed: int = 0
) -> list[tuple[Slice, ...]]:
    """Pairs ``(clean, degraded)`` of slices ``(C, H, W)``, each slice with each degradation once.

    For what acts on a slice as a whole: a crop of a truncated k-space is not the truncated k-space of a crop.

    Args:
        slices: in working scale.
        degradations: with their strength, for example truncation by 2 and by 4.
        min_size: leave out slices narrower than this, in pixels.
        seed: of the draws.

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
            pairs.append((clean, degradation.apply(batch, params)[0].numpy()))
    if not pairs:
        raise ValueError(f"no slice of at least {min_size} pixels each way among {len(slices)}")
    return pairs
