"""Batches from blocks of neighbouring slices of whole volumes, cut along all three axes and degraded anew each time.

A block's slices are transformed once and serve each other as neighbours, so that the degradation costs little beside
the network: one Fourier transform per slice and batch, not one per slice, neighbour and crop.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from monai_sasm.datasets.draws import Draws, share
from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.degradations.lesion_balls import LesionBalls
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.formats import open_images
from monai_sasm.types import Modality

logger = logging.getLogger(__name__)
AIR = 0.1  # working scale; below it lies nothing but noise
MARGIN = 12  # voxels of air kept around a head


def volumes(paths: Sequence[str | Path], exclude: Sequence[str] = ()) -> list[NDArray[np.float16]]:
    """MR volumes ``(X, Y, Z)`` in working scale, half precision, cut to what is not air.

    Args:
        paths: NIfTI files, DICOM folders, or folders of NIfTI files.
        exclude: leave out files with one of these in their name.
    """
    files = [file for path in map(Path, paths) for file in (sorted(path.glob("*.nii*")) or [path])]
    found = []
    for file in files:
        if any(part in file.name for part in exclude):
            continue
        for volume in open_images(file, Modality.MR):
            if volume.array.ndim == 4:
                found.append(_cropped(scaling_for(volume).forward(volume.array)[0]))
    if not found:
        raise FileNotFoundError(f"no MR volume in {[str(path) for path in paths]}")
    return found


class VolumeBlocks(Dataset[dict[str, torch.Tensor]]):
    """Batches ``clean`` ``(B, 1, S, S)`` and ``noisy`` ``(B, 2 n + 1, S, S)``, for a loader with ``batch_size=None``.

    With ``lesions`` every cut is there twice, degraded by the same noise: without lesions in the first half of a batch,
    with them in the second, as :class:`monai_sasm.losses.contrast.ContrastGainLoss` compares them.

    Args:
        images: volumes ``(X, Y, Z)`` in working scale; those too small for a block are left out, with a warning.
        degradations: one is drawn for each block, with one strength for all of its slices; noise differs.
        blocks: per batch, each from one volume.
        depth: slices of a block that are restored.
        cuts: places at which each block is cut; B is ``blocks * depth * cuts``, twice that with lesions.
        size: S, pixels.
        length: slices per epoch, over all processes of a distributed run; those with lesions do not count.
        neighbours: n.
        alone: share of the cuts whose neighbours are withheld, as those of thick slices are.
        min_std: draw a cut anew where the clean one varies less, at most ten times in a row.
        seed: of all draws, see :class:`~monai_sasm.datasets.draws.Draws`.
        lesions: put into the volumes before they are degraded; ``None`` for none.
        turned: whether cuts are turned by quarters, too; not where the degradation is along rows and a network need not
            find out which way.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.floating]],
        degradations: Sequence[DegradationModel],
        blocks: int = 2,
        depth: int = 8,
        cuts: int = 2,
        size: int = 96,
        length: int = 8000,
        neighbours: int = 2,
        alone: float = 0.3,
        min_std: float = 0.05,
        seed: int = 0,
        lesions: LesionBalls | None = None,
        turned: bool = True,
    ) -> None:
        least = max(size, depth + 2 * neighbours)
        self.images = [image for image in images if image.ndim == 3 and min(image.shape) >= least]
        if not self.images or not degradations:
            raise ValueError(
                f"volumes of at least {least} voxels along each axis and a degradation are needed, got "
                f"{[image.shape for image in images][:5]} and {len(degradations)} degradations"
            )
        if len(self.images) < len(images):
            logger.warning(
                "left out: %d of %d volumes have fewer than %d voxels along an axis; give larger ones, or a smaller "
                "side of the cuts (crop_size)",
                len(images) - len(self.images),
                len(images),
                least,
            )
        self.degradations, self.size, self.lesions, self.turned = list(degradations), size, lesions, turned
        self.blocks, self.depth, self.cuts = blocks, depth, cuts
        self.length, self.neighbours, self.alone, self.min_std = share(length), neighbours, alone, min_std
        self.draws = Draws(seed)

    def __len__(self) -> int:
        return max(self.length // (self.blocks * self.depth * self.cuts), 1)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A batch; ``index`` only ends the epoch."""
        if index >= len(self):
            raise IndexError(index)
        clean, noisy = zip(*(cut for _ in range(self.blocks) for cut in self._cuts_of_a_block()), strict=True)
        return {"clean": torch.cat(clean, 1).flatten(0, 1), "noisy": torch.cat(noisy, 1).flatten(0, 1)}

    def _cuts_of_a_block(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        volume = self.images[int(self.draws.random.integers(len(self.images)))]
        stack = np.moveaxis(volume, int(self.draws.random.integers(3)), 0)
        deep = self.depth + 2 * self.neighbours
        for _ in range(10):
            first = int(self.draws.random.integers(len(stack) - deep + 1))
            clean = torch.from_numpy(np.ascontiguousarray(stack[first : first + deep], np.float32))[None]
            if float(clean.std()) >= self.min_std:
                break
        if self.lesions is not None:
            clean = torch.cat([clean, clean + self.lesions.draw(clean[0], self.draws.generator)])
        # one image whose channels are the slices: one strength for all, noise of its own for each
        degradation = self.degradations[int(self.draws.random.integers(len(self.degradations)))]
        params = degradation.draw((1, deep, *clean.shape[2:]), self.draws.generator)
        noisy = torch.cat([degradation.apply(one[None], params) for one in clean])
        clean = torch.cat([reference(degradation, one[None], params) for one in clean])
        return [self._cut(clean, noisy) for _ in range(self.cuts)]

    def _cut(self, clean: torch.Tensor, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Slices ``(P, depth + 2 n, H, W)`` -> ``(P, depth, 1, S, S)`` and ``(P, depth, 2 n + 1, S, S)``."""
        deep = clean.shape[1]
        for _ in range(10):
            top, left = (int(self.draws.random.integers(side - self.size + 1)) for side in clean.shape[2:])
            place = (..., slice(top, top + self.size), slice(left, left + self.size))
            if float(clean[place][0].std()) >= self.min_std:
                break
        slabs = noisy[place].unfold(1, 2 * self.neighbours + 1, 1).permute(0, 1, 4, 2, 3)
        if self.draws.random.random() < self.alone:
            slabs = slabs[:, :, self.neighbours : self.neighbours + 1].expand_as(slabs)
        target = clean[place][:, self.neighbours : deep - self.neighbours, None]
        turns, flips = int(self.draws.random.integers(4)), [-1] if self.draws.random.integers(2) else []
        if not self.turned:
            turns &= 2  # upside down at most
        target, slabs = (torch.rot90(image, turns, (3, 4)).flip(flips).contiguous() for image in (target, slabs))
        return target, slabs


def _cropped(volume: NDArray[np.float32]) -> NDArray[np.float16]:
    """Without the slices on each side that hold only air, but for a margin."""
    keep = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        found = np.flatnonzero((volume > AIR).any(others))
        first, last = (int(found[0]), int(found[-1]) + 1) if len(found) else (0, volume.shape[axis])
        keep.append(slice(max(0, first - MARGIN), last + MARGIN))
    return np.ascontiguousarray(volume[tuple(keep)], np.float16)
