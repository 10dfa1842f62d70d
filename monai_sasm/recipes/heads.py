"""Batches for MR super-resolution: whole heads, and small pieces of heads among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_sasm.datasets.images import slices
from monai_sasm.recipes.images import scanner_truncations, truncations
from monai_sasm.training.degraded import DegradedBatches
from monai_sasm.training.mixture import BatchMixture
from monai_sasm.training.volume_blocks import VolumeBlocks, volumes


def truncated_heads(
    folders: Sequence[str | Path],
    small_folders: Sequence[str | Path],
    *,
    truncation: tuple[float, float],
    factors: Sequence[float],
    sigma: tuple[float, float],
    size: int,
    length: int,
    shares: tuple[float, float] = (0.75, 0.25),
    blocks: int = 2,
    depth: int = 8,
    cuts: int = 2,
    batch: int = 12,
    neighbours: int = 0,
    alone: float = 0.0,
    min_std: float = 0.05,
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> BatchMixture:
    """Batches of :class:`~monai_sasm.training.volume_blocks.VolumeBlocks` and
    :class:`~monai_sasm.training.degraded.DegradedBatches`, drawn anew.

    Args:
        folders: whole heads, cut along all three axes and truncated as scanners do it, ``truncation`` times
            (:func:`~monai_sasm.recipes.images.scanner_truncations`); see
            :func:`~monai_sasm.training.volume_blocks.volumes`.
        small_folders: small pieces of heads, whose borders come round, truncated by one of ``factors``
            (:func:`~monai_sasm.recipes.images.truncations`); see :func:`monai_sasm.datasets.images.slices`.
        sigma: range of the noise, of the image's white.
        size: side of a cut, pixels.
        length: batches per epoch.
        shares: of the batches: whole heads, small pieces.
        blocks, depth, cuts: of whole heads, ``blocks * depth * cuts`` cuts per batch.
        batch: slices per batch of small pieces.
        neighbours, alone, min_std, exclude, seed: see the classes.
    """
    heads = VolumeBlocks(
        volumes(folders, exclude),
        scanner_truncations(truncation, sigma),
        blocks,
        depth,
        cuts,
        size,
        neighbours=neighbours,
        alone=alone,
        min_std=min_std,
        seed=seed,
    )
    small = DegradedBatches(
        slices(small_folders, "MR", neighbours=neighbours),
        truncations(factors, sigma),
        batch,
        length=batch,
        size=size,
        neighbours=neighbours,
        alone=alone,
        seed=seed,
    )
    return BatchMixture([heads, small], shares, length, seed)
