"""A volume whose acquired slices were replaced by more and thinner ones over the same extent.

``n`` slices at a step ``T`` become ``m`` at ``T n / m``. Thin slice ``k`` has its centre at ``(k + 1/2) n / m - 1/2``
of the old slice index, so that first and last face of the stack stay where they were. Each format brings what its
writer keeps of the source onto the new grid (:meth:`monai_sasm.io.volume.Source.on_finer_slices`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.volume import FinerSlices, Source, Volume

_GAP = 0.02  # of the thickness, from which slices have a gap between them


def check_stack(volume: Volume) -> int:
    """The slice axis of a volume whose slices can be thinned.

    Raises:
        RefusedError: it has no stack of slices at equal steps.
    """
    if volume.slice_axis is None or volume.affine is None or volume.array.shape[volume.slice_axis + 1] < 2:
        raise RefusedError("one slice has no neighbours to be thinned between; give the whole series")
    if volume.geometry != "regular":
        raise RefusedError(
            f"slices must lie straight and at equal steps to be thinned, these are {volume.geometry}; resample the "
            "series to equal steps first"
        )
    return volume.slice_axis


def finer_slices(volume: Volume, array: NDArray[np.float32]) -> Volume:
    """``volume`` with the thin slices of ``array``, which has its shape but for the slice axis.

    Raises:
        RefusedError: see :func:`check_stack`.
        ValueError: another axis changed, or there are fewer slices than before.
    """
    axis = check_stack(volume)
    before, after = volume.array.shape, array.shape
    if len(before) != len(after) or any(
        a != b for i, (a, b) in enumerate(zip(before, after, strict=True)) if i != axis + 1
    ):
        raise ValueError(f"only the slice axis {axis} may change, got {after} for {before}")
    thick, thin = before[axis + 1], after[axis + 1]
    if thin < thick:
        raise ValueError(f"expected at least the {thick} acquired slices, got {thin}")
    onto = old_index(axis, thick, thin)
    affine = np.asarray(volume.affine) @ onto
    source = volume.source and volume.source.on_finer_slices(FinerSlices(axis, thick, thin, affine, onto))
    step = _step(volume, axis)
    notes = [f"{thick} slices at steps of {step:.3g} mm became {thin} of {step * thick / thin:.3g} mm"]
    acquired = volume.source.acquisition().thickness if isinstance(volume.source, Source) else None
    if acquired is not None and step > (1 + _GAP) * acquired:
        notes.append(f"acquired slices are {acquired:.3g} mm thick: what lies in the gaps between them is a guess")
    return replace(
        volume,
        array=np.asarray(array, dtype=np.float32),
        affine=affine,
        source=source,
        notes=(*volume.notes, *notes),
    )


def old_index(axis: int, thick: int, thin: int) -> NDArray[np.float64]:
    """``(4, 4)``: voxel index among thin slices -> voxel index among thick ones."""
    onto = np.eye(4)
    onto[axis, axis] = thick / thin
    onto[axis, 3] = (thick / thin - 1) / 2
    return onto


def _step(volume: Volume, axis: int) -> float:
    return float(np.linalg.norm(np.asarray(volume.affine)[:3, axis]))
