"""Clean slices and their degraded versions, whole ones: pairs made once, or batches degraded anew each time."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from monai_sasm.datasets.crops import aligned
from monai_sasm.datasets.draws import Draws, share
from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.degradations.lesion_balls import LesionBalls
from monai_sasm.functional.neighbours import fit_neighbours

logger = logging.getLogger(__name__)
Slice = NDArray[np.float32]


def degraded_pairs(
    slices: Sequence[Slice | tuple[Slice, ...]],
    degradations: Sequence[DegradationModel],
    min_size: int = 1,
    seed: int = 0,
    neighbours: int = 0,
    alone: float = 0.1,
) -> list[tuple[Slice, ...]]:
    """Pairs ``(clean, degraded)`` of slices ``(C, H, W)``, each slice with each degradation once.

    For what acts on a slice as a whole: a crop of a truncated k-space is not the truncated k-space of a crop.

    Args:
        slices: in working scale; pairs ``(clean, degraded)`` that were measured are given back, with ``neighbours``.
        degradations: with their strength, for example truncation by 2 and by 4.
        min_size: leave out slices narrower than this, in pixels, with a warning.
        seed: of the draws.
        neighbours: on each side of the degraded slice, which is then ``(2 n + 1, H, W)``; the clean one is
            ``(1, H, W)``. Slices come with their neighbours, see :func:`monai_sasm.datasets.images.slices`, or alone.
        alone: share of the slices whose neighbours are withheld, so that a network learns to do without.

    Raises:
        ValueError: no slice is large enough.
    """
    generator = torch.Generator().manual_seed(seed)
    pairs = [_fitted(entry, neighbours) for entry in slices if isinstance(entry, tuple)]
    single = [entry for entry in slices if not isinstance(entry, tuple)]
    large = [clean for clean in single if min(clean.shape[-2:]) >= min_size]
    if large and len(large) < len(single):
        logger.warning(
            "left out: %d of %d slices are less than %d pixels wide or high",
            len(single) - len(large),
            len(single),
            min_size,
        )
    for clean in large:
        batch = torch.from_numpy(np.ascontiguousarray(clean))[None]
        channels, height, width = clean.shape
        for degradation in degradations:
            params = degradation.draw((1, channels, height, width), generator)
            degraded, wanted = degradation.apply(batch, params), reference(degradation, batch, params)
            if neighbours and float(torch.rand((), generator=generator)) < alone:
                degraded = fit_neighbours(degraded, 0)
            if neighbours:
                degraded, wanted = fit_neighbours(degraded, neighbours), fit_neighbours(wanted, 0)
            pairs.append((wanted[0].numpy(), degraded[0].numpy()))
    if not pairs:
        raise ValueError(f"no slice of at least {min_size} pixels each way among {len(slices)}")
    return pairs


def _fitted(pair: tuple[Slice, ...], neighbours: int) -> tuple[Slice, ...]:
    clean, degraded = pair
    if neighbours:
        degraded = fit_neighbours(torch.from_numpy(degraded)[None], neighbours)[0].numpy()
    return clean, degraded


class DegradedBatches(Dataset[dict[str, torch.Tensor]]):
    """Batches ``clean`` ``(B, 1, H, W)`` and ``noisy`` ``(B, 2 n + 1, H, W)`` of slices of one shape, for a loader that
    does not batch (``batch_size=None``).

    Each batch is degraded anew, as whole slices, so that neither the noise nor the place of a crop can be learnt by
    heart; then it is cut to ``size`` where it is larger, turned and flipped. Slices of one volume have one shape.
    With ``lesions`` every slice is there twice, see :class:`~monai_sasm.training.volume_blocks.VolumeBlocks`.

    Args:
        images: clean slices ``(1, H, W)``, or between their neighbours ``(2 n + 1, H, W)``, in working scale; or pairs
            ``(clean, noisy)`` that were measured, with neighbours or without them. The clean one may be NaN where it is
            not known.
        degradations: of which one is drawn for each batch; of pairs the noisy image is degraded further, the clean one
            stays. ``None`` for pairs as they are.
        batch: slices per batch, fewer where a shape has fewer.
        length: slices per epoch, over all processes of a distributed run.
        size: largest side in pixels.
        neighbours: n.
        alone: share of the batches whose neighbours are withheld.
        mirrored: share of the batches whose slices are continued by their mirror image on two sides before they are
            degraded, and then cut: what larger slices show, where nothing comes round from the opposite side.
        min_std: leave out cuts of which the clean one varies less, at most ten times in a row.
        seed: of all draws, see :class:`~monai_sasm.datasets.draws.Draws`.
        lesions: put into the slices before they are degraded, into both images of a pair; ``None`` for none.

    Raises:
        ValueError: there are no images, pairs beside single images, or single images and no degradation.
    """

    def __init__(
        self,
        images: Sequence[Slice | tuple[Slice, ...]],
        degradations: Sequence[DegradationModel] | None,
        batch: int,
        length: int,
        size: int,
        neighbours: int = 0,
        alone: float = 0.1,
        mirrored: float = 0.0,
        min_std: float = 0.0,
        seed: int = 0,
        lesions: LesionBalls | None = None,
    ) -> None:
        entries = aligned(images)
        kinds = {len(entry) for entry in entries}
        if kinds not in ({1}, {2}) or (kinds == {1} and not degradations):
            raise ValueError(
                "expected clean images and degradations, or pairs (clean, noisy), "
                f"got {len(entries)} images and {len(degradations or ())} degradations"
            )
        groups: dict[tuple[tuple[int, ...], ...], list[tuple[Slice, ...]]] = {}
        for entry in entries:
            groups.setdefault(tuple(image.shape for image in entry), []).append(entry)
        self.groups = list(groups.values())
        sizes = np.array([len(group) for group in self.groups], float)
        self.shares = sizes / sizes.sum()
        self.degradations, self.batch, self.length, self.size = degradations, batch, share(length), size
        self.neighbours, self.alone, self.mirrored, self.min_std = neighbours, alone, mirrored, min_std
        self.lesions, self.draws = lesions, Draws(seed)

    def __len__(self) -> int:
        return max(self.length // self.batch, 1)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A batch; ``index`` only ends the epoch."""
        if index >= len(self):
            raise IndexError(index)
        for _ in range(10):
            clean, noisy = self._cut()
            if _spread(clean) >= self.min_std:
                break
        turns, flips = int(self.draws.random.integers(4)), [-1] if self.draws.random.integers(2) else []
        clean, noisy = (torch.rot90(image, turns, (2, 3)).flip(flips).contiguous() for image in (clean, noisy))
        return {"clean": clean, "noisy": noisy}

    def _cut(self) -> tuple[torch.Tensor, torch.Tensor]:
        group = self.groups[int(self.draws.random.choice(len(self.groups), p=self.shares))]
        chosen = self.draws.random.choice(len(group), min(self.batch, len(group)), replace=False)
        stacks = [torch.from_numpy(np.stack(kind)) for kind in zip(*(group[index] for index in chosen), strict=True)]
        size = self.size
        if self.degradations is not None and self.draws.random.random() < self.mirrored:
            size = min(size, *stacks[0].shape[2:])
            for axis in (2, 3):
                stacks = [torch.cat([stack, stack.flip(axis)], axis) for stack in stacks]
        clean, noisy = self._degraded(*stacks)
        if self.draws.random.random() < self.alone:
            noisy = fit_neighbours(noisy, 0)
        corner = [int(self.draws.random.integers(max(side - size, 0) + 1)) for side in clean.shape[2:]]
        rows, columns = (slice(start, start + size) for start in corner)
        clean, noisy = fit_neighbours(clean, 0), fit_neighbours(noisy, self.neighbours)
        return clean[..., rows, columns], noisy[..., rows, columns]

    def _degraded(self, clean: torch.Tensor, noisy: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean and degraded; with lesions, once more with them. What is ``noisy`` already is degraded further."""
        given, degradation, params = clean if noisy is None else noisy, None, None
        if self.degradations:
            degradation = self.degradations[int(self.draws.random.integers(len(self.degradations)))]
            count, channels, height, width = given.shape
            params = degradation.draw((count, channels, height, width), self.draws.generator)
        fields = [torch.zeros_like(given)]
        if self.lesions is not None:
            fields.append(torch.stack([self.lesions.draw(stack, self.draws.generator) for stack in given]))
        halves = [given + field for field in fields]
        degraded = halves if degradation is None else [degradation.apply(half, params) for half in halves]
        if noisy is not None or degradation is None:
            wanted = [clean + fit_neighbours(field, 0) for field in fields]
        else:
            wanted = [reference(degradation, half, params) for half in halves]
        return torch.cat(wanted), torch.cat(degraded)


def _spread(clean: torch.Tensor) -> float:
    """Standard deviation of what is known of a cut; below all others where nothing is."""
    known = clean[~clean.isnan()]
    return float(known.std()) if len(known) > 1 else -1.0
