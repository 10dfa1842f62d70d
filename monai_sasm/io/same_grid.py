"""Whether images lie pixel on pixel: shape, place in space, and how photos are turned."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.orientation import orientation_of
from monai_sasm.io.volume import Volume

MOVED = 1e-3  # mm, or its part of an affine, by which two grids may differ


def same_place(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two affines ``(4, 4)`` are the same but for rounding."""
    return one.shape == other.shape and np.allclose(one, other, atol=MOVED, rtol=MOVED)


def check_same_grid(clean: Volume, degraded: Volume) -> None:
    """Refuse a pair whose images do not show the same at the same pixel.

    Raises:
        RefusedError: they differ in shape, place in space or EXIF orientation.
    """
    if clean.array.shape != degraded.array.shape:
        raise RefusedError(f"clean {clean.array.shape} and degraded {degraded.array.shape} differ in shape")
    if clean.affine is not None and degraded.affine is not None and not same_place(clean.affine, degraded.affine):
        raise RefusedError("clean and degraded image do not lie at the same place; resample one onto the other")
    if clean.modality.profile.is_picture and orientation_of(clean) != orientation_of(degraded):
        raise RefusedError("EXIF turns clean and degraded photo differently; save both upright")
