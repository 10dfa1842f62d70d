"""On-disk numbers of any type ⇄ float32: what was not changed comes back bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StoredScaling:
    """``value = number * slope + intercept``; ``slope`` is ``None`` where the file has no scaling."""

    slope: float | None = None
    intercept: float = 0.0


@dataclass(frozen=True, eq=False)
class StoredValues:
    """What is needed to turn processed float32 values back into the numbers of the file.

    Args:
        dtype: type of the numbers on disk, with its byte order.
        scaling: their linear scaling.
        touches: whether the file uses the lowest and the highest number of its integer type.
        raw: the numbers, kept only when float32 cannot give them back bit for bit (float64, large integers, NaN,
            infinities).
    """

    dtype: np.dtype[Any]
    scaling: StoredScaling
    touches: tuple[bool, bool] = (False, False)
    raw: NDArray[Any] | None = None


def decode(raw: NDArray[Any], scaling: StoredScaling) -> NDArray[np.float32]:
    """Values of the on-disk numbers, float32 in Fortran order."""
    array = np.empty(raw.shape, np.float32, order="F")
    for index in range(raw.shape[-1]):  # slab by slab: the float64 of the scaling never holds a whole volume
        slab = raw[..., index]
        with np.errstate(over="ignore", invalid="ignore"):
            if scaling.slope is not None:
                slab = slab.astype(np.float64) * scaling.slope + scaling.intercept
            array[..., index] = slab
    return array


def encode(array: NDArray[np.float32], dtype: np.dtype[Any], scaling: StoredScaling) -> NDArray[Any]:
    """Numbers for the file; integer types are rounded to nearest and clipped to their ends."""
    raw = np.empty(array.shape, dtype, order="F")
    for index in range(array.shape[-1]):
        slab: NDArray[Any] = array[..., index]
        if scaling.slope is not None:
            slab = (slab.astype(np.float64) - scaling.intercept) / scaling.slope
        if dtype.kind in "iu":
            slab = _clip_to(np.rint(slab.astype(np.float64)), dtype)
        raw[..., index] = slab
    return raw


def remember(raw: NDArray[Any], array: NDArray[np.float32], scaling: StoredScaling) -> StoredValues:
    """What the writer will need about ``raw``, of which ``array`` is the finite float32 version."""
    touches = (False, False)
    if raw.dtype.kind in "iu":
        limits = np.iinfo(raw.dtype)
        touches = (bool(raw.min() == limits.min), bool(raw.max() == limits.max))
    same = _same_bits(encode(array, raw.dtype, scaling), raw)
    return StoredValues(raw.dtype, scaling, touches, None if same else raw)


def fit(array: NDArray[np.float32], stored: StoredValues) -> tuple[StoredScaling, NDArray[Any], int]:
    """Numbers for the file, in the source's scaling where its type holds the new values.

    A value past an end of an integer type is clipped when the source itself touches that end (it was saturated, or
    zero magnitude); otherwise all numbers get a fresh scaling over the whole type.

    Returns:
        The scaling to put into the header, the numbers, and how many values were clipped.
    """
    dtype, scaling, clipped = stored.dtype, stored.scaling, 0
    if dtype.kind in "iu":
        low, high = _range_of(dtype, scaling)
        below, above = int((array < low).sum()), int((array > high).sum())
        flipped = scaling.slope is not None and scaling.slope < 0
        may_clip = stored.touches[::-1] if flipped else stored.touches
        if (below and not may_clip[0]) or (above and not may_clip[1]):
            fresh = _fresh_scaling(array, dtype)
            return fresh, encode(array, dtype, fresh), 0
        clipped = below + above
    raw = encode(array, dtype, scaling)
    if stored.raw is not None:
        before = decode(stored.raw, scaling)
        keep = (array == before) | ~np.isfinite(before)
        raw[keep] = stored.raw[keep]
    return scaling, raw, clipped


def _clip_to(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    limits = np.iinfo(dtype)
    highest = float(limits.max)
    if int(highest) > limits.max:  # 64-bit integers: the nearest float64 lies one past the end
        highest = float(np.nextafter(highest, 0))
    return np.clip(values, float(limits.min), highest)


def _range_of(dtype: np.dtype[Any], scaling: StoredScaling) -> tuple[float, float]:
    """Lowest and highest value that rounds to a number of the type."""
    limits = np.iinfo(dtype)
    ends = [float(limits.min) - 0.5, float(limits.max) + 0.5]
    if scaling.slope is not None:
        ends = sorted(end * scaling.slope + scaling.intercept for end in ends)
    return ends[0], ends[1]


def _fresh_scaling(array: NDArray[np.float32], dtype: np.dtype[Any]) -> StoredScaling:
    """Spread the values over the whole type; slope and intercept in float32, as NIfTI-1 stores them."""
    limits = np.iinfo(dtype)
    low, high = float(array.min()), float(array.max())
    slope = float(np.float32((high - low) / (float(limits.max) - float(limits.min)))) or 1.0
    return StoredScaling(slope, float(np.float32(low - float(limits.min) * slope)))


def _same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    whole = f"u{right.dtype.itemsize}"
    return bool(np.array_equal(left.view(whole), right.view(whole)))
