"""Arrays of one's own as volumes: what is not said is asked for, and nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.doubts import OVERRULE, doubt_about
from monai_sasm.io.entry import safe_name
from monai_sasm.io.volume import Source, Volume, thickest_axis
from monai_sasm.types import Modality


@dataclass(frozen=True, eq=False)
class ArraySource(Source):
    """An array instead of a file: photos are written with its bit depth.

    Args:
        dtype: of the array.
        suffix: of the file that a result is written to.
    """

    format = ""
    keeps_axes = True

    dtype: np.dtype[Any]
    suffix: str

    def result_name(self, name: str) -> str:
        """The name of the volume with the suffix."""
        return name + self.suffix


def volume_from_array(
    array: NDArray[Any],
    affine: NDArray[Any] | None,
    modality: Modality | str | None,
    *,
    name: str = "image",
    slice_axis: int | None = None,
    force_modality: bool = False,
) -> Volume:
    """See :meth:`monai_sasm.io.volume.Volume.from_array`."""
    if np.ma.is_masked(array):
        raise RefusedError("an image has no mask, got a masked array with masked pixels; fill them by .filled(value)")
    array = np.asarray(array)
    if modality is None:
        raise RefusedError(
            f"say what made the image: modality={', '.join(repr(one.value) for one in Modality.known())}"
        )
    modality = Modality(modality)
    if array.dtype.kind not in "iuf":
        raise RefusedError(f"an image is made of real numbers, got {array.dtype}; of a complex one take np.abs(array)")
    if not array.size or not np.isfinite(array).all():
        raise RefusedError("an image needs pixels, all finite, got none, NaN or infinite ones; fill them first")
    if array.dtype.kind == "f" and np.abs(array).max() > np.finfo(np.float32).max:
        raise RefusedError("an image is float32, got numbers beyond its 3.4e38; divide it first")
    if modality.profile.is_picture:
        return _photo(array, affine, name, slice_axis)
    volume = _medical(array, affine, modality, name, slice_axis)
    doubt = None if force_modality else doubt_about(volume)
    if doubt:
        raise RefusedError(f"{doubt}; {OVERRULE}")
    return volume


def _photo(array: NDArray[Any], affine: NDArray[Any] | None, name: str, slice_axis: int | None) -> Volume:
    if affine is not None or slice_axis is not None:
        raise RefusedError(
            "a photo has no place in space: leave affine and slice_axis out, or say modality='CT' or 'MR'"
        )
    if array.ndim == 3 and len(array) not in (1, 3):
        way = "pass array.transpose(2, 0, 1), without alpha" if array.shape[2] in (3, 4) else "take three of them"
        raise RefusedError(f"a photo is (H, W) or (3, H, W), got {array.shape}; {way}")
    if array.ndim not in (2, 3):
        raise RefusedError(f"a photo is (H, W) or (3, H, W), got {array.shape}; pass one photo at a time")
    if array.dtype.kind == "i":
        raise RefusedError(f"a photo of integers is uint8 or uint16, got {array.dtype}; convert it with .astype()")
    values = array.astype(np.float32)
    if array.dtype.kind == "u":
        values /= np.float32(np.iinfo(array.dtype).max)
    elif values.min() < 0 or values.max() > 1:
        span = f"[{values.min():g}, {values.max():g}]"
        raise RefusedError(f"a photo of floats lies in [0, 1], got {span}; divide by its white, or clip it")
    pixels = values[None] if values.ndim == 2 else values
    source = ArraySource(array.dtype, ".png")
    return Volume(pixels, Modality.PHOTO, name=safe_name(name), source=source, geometry="single")


def _medical(
    array: NDArray[Any], affine: NDArray[Any] | None, modality: Modality, name: str, slice_axis: int | None
) -> Volume:
    if not 2 <= array.ndim <= 4:
        raise RefusedError(f"a {modality.value} image is (H, W), (i, j, k) or (T, i, j, k), got {array.shape}")
    if affine is None:
        raise RefusedError(
            f"a {modality.value} image needs its affine, (4, 4) voxel index to RAS mm (nibabel's image.affine; "
            "np.diag([*spacing, 1]) where only the spacing is known): without one no viewer shows it rightly"
        )
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise RefusedError(f"an affine is a (4, 4) matrix that has an inverse, got {affine.shape}; see nibabel.affines")
    values = array.astype(np.float32)
    spatial = array.shape[-3:]
    if len(spatial) == 3 and slice_axis is None:
        slice_axis = spatial.index(1) if 1 in spatial else thickest_axis(affine)
    volume = Volume(
        values if array.ndim == 4 else values[None],
        modality,
        affine=affine,
        slice_axis=slice_axis,
        name=safe_name(name),
        source=ArraySource(array.dtype, ".nii.gz"),
    )
    alone = slice_axis is None or spatial[slice_axis] == 1
    return replace(volume, geometry="single") if alone else volume
