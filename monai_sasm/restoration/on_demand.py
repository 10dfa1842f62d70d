"""A volume restored slice by slice in any order, for whoever looks on; the result is that of a restorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.functional.intensity import scalings_for
from monai_sasm.functional.neighbours import neighbours_of
from monai_sasm.functional.noise import volume_noise_level
from monai_sasm.io import paged
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.operating_range import range_notes
from monai_sasm.restoration.plan import Plan
from monai_sasm.restoration.restore import at_strength, coherent_weights, concluded, noise_of_slice, restore_fully
from monai_sasm.restoration.restored import Restored
from monai_sasm.restoration.shelter import darkest, with_change
from monai_sasm.restoration.statistics import SliceStatistics
from monai_sasm.restoration.threads import as_one_of
from monai_sasm.restoration.told_noise import told_slices
from monai_sasm.types import ImageBatch


@dataclass(frozen=True)
class _Slice:
    """What one slice comes to at strength 1, in working scale, and what was noted.

    Weights are kept in 255 steps, and only of classes that act: a long series has hundreds of slices.
    """

    full: ImageBatch
    noise: float
    weights: dict[str, NDArray[np.uint8]]
    spread: NDArray[np.float32] | None


class OnDemand:
    """Slices of one volume, each restored once, at all strengths.

    Strength is a blend at the very end (:func:`monai_sasm.restoration.restore.at_strength`), so that what is restored
    is kept at strength 1, and any other follows without a network.

    Args:
        volume: of the plan's modality; kept, and not changed.
        plan: without upscaling; its ``keep_maps`` says whether weights and uncertainty are kept, and its strength is
            not looked at.
    """

    def __init__(self, volume: Volume, plan: Plan) -> None:
        if plan.scale != 1:
            raise ValueError("slices are restored on demand in their own size; leave upscale off")
        self.volume, self.plan = volume, plan
        self.scalings = scalings_for(volume)  # of each slice
        self.natives = list(volume.each_slice())  # (c, H, W) each, views
        self._near = neighbours_of(volume, plan.neighbours)
        self._stack = volume.stack_length
        self._given = told_slices(volume, plan.options.sigma, plan.noise_estimator, plan.experts.values())
        self._coherent = coherent_weights(volume, plan, self.scalings, given=self._given, behind=len(self.natives))
        self._done: dict[int, _Slice] = {}

    def __len__(self) -> int:
        return len(self.natives)

    @property
    def done(self) -> list[int]:
        """Slices that are restored, sorted."""
        return sorted(self._done.copy())

    @property
    def units(self) -> int:
        """How often restoring one slice calls ``progress``, at most."""
        return self.plan.work_units(self.volume) // len(self)

    def restore(self, index: int, progress: Callable[[int], None] | None = None) -> None:
        """Restore one slice, unless that was done; ``progress`` as for :class:`Restorer`, of this slice alone."""
        if index in self._done:
            return
        image, count = self._working(index), len(self.natives[index])
        statistics = SliceStatistics(self.plan.classes, self.plan.options.keep_maps, 1)
        first = index - index % self._stack
        places = [min(max(index + step, first), first + self._stack - 1) for step in range(-self._near, self._near + 1)]
        slab = torch.cat([image if place == index else self._working(place) for place in places], 1)
        with as_one_of(self.plan, len(self)):
            _, full = restore_fully(
                image,
                self.plan,
                given=None if self._given is None else self._given[index : index + 1],
                statistics=statistics,
                progress=progress,
                slab=slab if slab.shape[1] > count else None,
                weights=None if self._coherent is None else self._coherent(index, image),
            )
        kept = {name: maps[0] for name, maps in statistics.kept.items() if name in self.plan.classes}
        self._done[index] = _Slice(
            full=full.cpu(),
            noise=noise_of_slice(self.natives[index], self.plan, self.scalings[index]),
            weights={name: np.rint(255 * one).astype(np.uint8) for name, one in kept.items() if one.any()},
            spread=statistics.spreads[0] * np.float32(self.scalings[index].scale) if statistics.spreads else None,
        )

    def change(self, index: int, strength: float = 1.0) -> NDArray[np.float32]:
        """What is added to a slice, ``(c, H, W)`` in the unit of the volume.

        Raises:
            KeyError: it is not restored yet.
        """
        one, channels = self._done[index], len(self.natives[index])
        working = self._working(index).cpu()
        change = at_strength(working.expand_as(one.full), one.full, strength, channels=channels) - working
        return np.asarray(self.scalings[index].scale * change[0].numpy(), np.float32)

    def weights(self, index: int) -> dict[str, NDArray[np.uint8]]:
        """Class -> ``(H, W)`` weight of the first pass times 255, of classes that act, where maps are kept."""
        return self._done[index].weights

    def noise(self, index: int) -> float:
        """Noise of the tissue of a slice as it came, as the networks read it, in working scale."""
        return self._done[index].noise

    def uncertainty(self, index: int) -> NDArray[np.float32] | None:
        """``(H, W)`` in the unit of the volume at strength 1, where an expert draws samples and maps are kept."""
        return self._done[index].spread

    def notes(self, *indices: int) -> list[str]:
        """What of slices lies outside the range of the experts that acted there, where maps are kept."""
        slices = [self._done[index] for index in indices]
        names = {name for one in slices for name in one.weights}
        means = {name: sum(float(one.weights[name].mean()) for one in slices if name in one.weights) for name in names}
        weights = {name: total / 255 / len(slices) for name, total in means.items()}
        noise = volume_noise_level([one.noise for one in slices])
        given = self._given[0] if self._given else None
        return range_notes(self.volume, list(self.plan.experts.values()), weights, noise, given)

    def restored(self, strength: float) -> Restored:
        """The whole volume at a strength, as ``restorer(volume, strength=strength)`` gives it, without maps.

        Raises:
            KeyError: a slice is not restored yet.
        """
        plan = replace(self.plan, options=replace(self.plan.options, strength=strength, keep_maps=False))
        result = self.volume.with_array(paged.like(self.volume.array))
        changed = False
        for index, (native, place) in enumerate(zip(self.natives, paged.paging(result.each_slice()), strict=True)):
            change = self.change(index, strength)
            changed = changed or bool(change.any())
            place[...] = with_change(native, change, darkest(native, self.plan.modality.profile))
        noted = replace(result, notes=(*result.notes, *self.notes(*range(len(self)))))
        return Restored(concluded(noted, plan, changed), plan, {}, None, {}, changed=changed)

    def save(self, target: Path, strength: float, *, overwrite: bool = False) -> list[Path]:
        """Write the whole volume at a strength to this file or folder, see :meth:`Restored.save_as`; the files."""
        return self.restored(strength).save_as(target, overwrite=overwrite)[0]

    def _working(self, index: int) -> ImageBatch:
        """A slice in working scale, ``(1, c, H, W)``."""
        array = self.scalings[index].forward(np.array(self.natives[index]))
        return torch.from_numpy(array)[None].to(self.plan.device)
