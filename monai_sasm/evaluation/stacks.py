"""MR volumes as stacks of slices across any axis, with the affine that a stack of them has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.data import load
from monai_sasm.evaluation.scoring import Image
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.types import Modality

Sides = tuple[float, float, float]
"""Of a voxel, mm, in the order of the axes."""


def scaled_volume(path: Path) -> tuple[Image, Sides, int]:
    """An MR file in working scale ``(X, Y, Z)``, its sides, and the axis across which its slices lie (0 if unknown)."""
    volume = load(path, Modality.MR)
    x, y, z = np.linalg.norm(np.asarray(volume.affine)[:3, :3], axis=0)
    scaled: Image = scaling_for(volume).forward(volume.array)[0]
    return scaled, (float(x), float(y), float(z)), volume.slice_axis or 0


def stack_across(scaled: Image, sides: Sides, axis: int) -> tuple[Image, Sides]:
    """The slices ``(N, H, W)`` across an axis of a volume, a view, and their sides: between slices, rows, columns."""
    rows, columns = (side for other, side in enumerate(sides) if other != axis)
    return np.moveaxis(scaled, axis, 0), (sides[axis], rows, columns)


def stack_affine(sides: Sides) -> NDArray[np.float64]:
    """The affine of ``(W, H, N)``, the order of a NIfTI file, for sides in the order ``(N, H, W)``."""
    return np.diag([*reversed(sides), 1.0])
