"""How slices lie in space: their class and their affine, from positions and orientation (PS3.3 C.7.6.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.volume import LPS_TO_RAS

RELATIVE_TOLERANCE = 0.01
"""Part of the slice step by which a position may miss its place and still count as regular."""
ABSOLUTE_TOLERANCE = 0.01
"""The same in mm: decimal strings in headers carry about this much rounding."""
UNEVEN = ("gap", "irregular")
"""Classes of slices that no affine places: they are restored one by one, and written as DICOM only."""
TILT_TOLERANCE = 0.1
"""Degrees between the slice step and the slice normal below which a stack counts as straight."""


@dataclass(frozen=True)
class Stack:
    """Geometry of sorted slices.

    Args:
        geometry: ``regular``, ``tilted``, ``gap``, ``irregular`` or ``single``.
        affine: ``(4, 4)``, (slice, row, column) index to RAS mm; the mean step where steps differ.
        notes: what a reader should know about it.
    """

    geometry: str
    affine: NDArray[np.float64]
    notes: tuple[str, ...] = ()


def normal_of(orientation: tuple[float, ...]) -> NDArray[np.float64]:
    """Unit slice normal (LPS) of an ImageOrientationPatient.

    Raises:
        ValueError: the two direction cosines are not unit and orthogonal.
    """
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    unit = abs(np.linalg.norm(row) - 1) < 1e-2 and abs(np.linalg.norm(column) - 1) < 1e-2
    if not unit or abs(row @ column) > 1e-2:
        raise ValueError("ImageOrientationPatient is not two orthogonal unit vectors")
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def stack(
    positions: NDArray[np.float64],
    orientation: tuple[float, ...],
    spacing: tuple[float, ...],
    thickness: float | None,
) -> Stack:
    """Classify slices sorted along their normal.

    Args:
        positions: ``(n, 3)`` ImagePositionPatient, LPS mm, ascending along the normal, no two alike.
        orientation: ImageOrientationPatient.
        spacing: PixelSpacing (between rows, between columns), mm.
        thickness: step in mm to assume for a single slice; 1 mm when ``None``.
    """
    normal = normal_of(orientation)
    if len(positions) == 1:
        return Stack("single", _affine(positions[0], normal * (thickness or 1.0), orientation, spacing))
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    along = np.diff(positions @ normal)
    if along.min() < ABSOLUTE_TOLERANCE:
        affine = _affine(positions[0], normal * (thickness or 1.0), orientation, spacing)
        return Stack("irregular", affine, ("slices lie beside each other; they are processed one by one",))
    tolerance = max(ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE * float(np.median(along)))
    tilt = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    kind, notes = _kind(positions, along, step, tolerance)
    if not on_one_line(positions, max(tolerance, min(spacing) / 2)):
        notes += ("slices are shifted against each other in their plane",)
    elif tilt > TILT_TOLERANCE:
        notes += (f"slices are sheared by {tilt:.1f} degrees (gantry tilt); kept on their native positions",)
        kind = "tilted" if kind == "regular" else kind
    return Stack(kind, _affine(positions[0], step, orientation, spacing), notes)


def on_one_line(positions: NDArray[np.float64], near: float) -> bool:
    """Whether places ``(n, 3)``, in order, lie within ``near`` mm of the line from the first to the last."""
    beside = positions - positions[0]
    length = float(np.linalg.norm(beside[-1]))
    along = beside[-1] / length if length > 0 else beside[-1]
    return bool(np.linalg.norm(beside - (beside @ along)[:, None] * along, axis=1).max() <= near)


def _kind(
    positions: NDArray[np.float64], along: NDArray[np.float64], step: NDArray[np.float64], tolerance: float
) -> tuple[str, tuple[str, ...]]:
    count = np.arange(len(positions))[:, None]
    if np.abs(positions - (positions[0] + count * step)).max() <= tolerance and np.ptp(along) <= 2 * tolerance:
        return "regular", ()
    unit = float(np.median(along))
    multiple = np.rint(along / unit)
    if (np.abs(along - multiple * unit) <= tolerance).all() and multiple.min() == 1 and multiple.max() > 1:
        missing = int(multiple.sum() - len(multiple))
        return "gap", (f"{missing} slice position(s) missing; slices are processed one by one on native positions",)
    spread = f"slice steps vary from {along.min():.2f} to {along.max():.2f} mm"
    return "irregular", (f"{spread}; slices are processed one by one on native positions",)


def _affine(
    origin: NDArray[np.float64], step: NDArray[np.float64], orientation: tuple[float, ...], spacing: tuple[float, ...]
) -> NDArray[np.float64]:
    """PS3.3 equation C.7.6.2.1-1 with the slice index first; LPS turned to RAS."""
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.asarray(orientation[3:], float) * spacing[0]
    affine[:3, 2] = np.asarray(orientation[:3], float) * spacing[1]
    affine[:3, 3] = origin
    return LPS_TO_RAS @ affine
