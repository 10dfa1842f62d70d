"""A volume whose acquired slices were replaced by more and thinner ones over the same extent.

``n`` slices at a step ``T`` become ``m`` at ``T n / m``. Thin slice ``k`` has its centre at ``(k + 1/2) n / m - 1/2``
of the old slice index, so that first and last face of the stack stay where they were. What the writers keep of the
source is brought onto the new grid: the NIfTI header, or for each thin DICOM slice its position and the acquired slice
it lies in, which lends its header.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.geometry import LPS_TO_RAS
from monai_sasm.io.nifti.nifti import NiftiSource
from monai_sasm.io.volume import Volume


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
    source = volume.source
    if isinstance(source, NiftiSource):
        source = _nifti(source, onto, after)
    elif source is not None:
        source = _dicom(source, affine, thick, thin)
    note = (
        f"{thick} slices of {_step(volume, axis):.3g} mm became {thin} of {_step(volume, axis) * thick / thin:.3g} mm"
    )
    return replace(
        volume,
        array=np.asarray(array, dtype=np.float32),
        affine=affine,
        source=source,
        notes=(*volume.notes, note),
    )


def old_index(axis: int, thick: int, thin: int) -> NDArray[np.float64]:
    """``(4, 4)``: voxel index among thin slices -> voxel index among thick ones."""
    onto = np.eye(4)
    onto[axis, axis] = thick / thin
    onto[axis, 3] = (thick / thin - 1) / 2
    return onto


def _step(volume: Volume, axis: int) -> float:
    return float(np.linalg.norm(np.asarray(volume.affine)[:3, axis]))


def _nifti(source: NiftiSource, onto: NDArray[np.float64], shape: tuple[int, ...]) -> NiftiSource:
    old, header = source.header, source.header.copy()
    axis = int(np.flatnonzero(onto[:3, 3])[0]) if onto[:3, 3].any() else 0
    sizes = list(old.get_data_shape())
    sizes[axis] = shape[axis + 1]
    zooms = list(old.get_zooms())
    zooms[axis] *= onto[axis, axis]
    header.set_data_shape(sizes)
    header.set_zooms(zooms)
    if int(old["qform_code"]):
        header.set_qform(old.get_qform() @ onto, int(old["qform_code"]))
    if int(old["sform_code"]):
        header.set_sform(old.get_sform() @ onto, int(old["sform_code"]))
    for timing in ("slice_code", "slice_start", "slice_end", "slice_duration"):
        header[timing] = 0  # when each acquired slice was measured
    # NaN and integers float32 cannot hold belonged to voxels that are no more.
    return replace(source, header=header, stored=replace(source.stored, raw=None))


def _dicom(source: Any, affine: NDArray[np.float64], thick: int, thin: int) -> Any:
    """Every thin slice with its own position and the acquired slice that it lies in as template."""
    lps = LPS_TO_RAS @ affine
    parents = np.minimum(((np.arange(thin) + 0.5) * thick / thin).astype(int), thick - 1)
    per_slice = ("paths", "frames", "instances", "slopes", "intercepts")
    chosen = {name: tuple(getattr(source, name)[parent] for parent in parents) for name in per_slice}
    positions = tuple(tuple(float(part) for part in lps[:3, 3] + k * lps[:3, 0]) for k in range(thin))
    neighbours = tuple(_neighbours(k, thick, thin) for k in range(thin))
    return replace(
        source,
        **chosen,
        positions=positions,
        thickness=float(np.linalg.norm(lps[:3, 0])),
        acquired=tuple(tuple(source.instances[i] for i in each) for each in neighbours),
    )


def _neighbours(number: int, thick: int, thin: int) -> tuple[int, ...]:
    """The acquired slices between whose centres, or in which, a thin slice lies."""
    place = (number + 0.5) * thick / thin - 0.5
    low, high = int(np.floor(place)), int(np.ceil(place))
    return tuple(sorted({min(max(index, 0), thick - 1) for index in (low, high)}))
