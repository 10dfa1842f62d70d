"""On-disk numbers of any type ⇄ float32, slab by slab: what was not changed comes back bit for bit.

A volume is held once, as float32, out of memory if it is long (:mod:`monai_sasm.io.paged`). Its numbers pass by in
slabs of about a mebibyte, along the last axis, which is how they lie in a file (Fortran order, all further axes taken
for one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io import paged

_SLAB = 1 << 18  # numbers


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
        raw: first index of a slab -> its numbers, kept only where float32 cannot give them back bit for bit (float64,
            large integers, NaN, infinities); ``None`` where it can everywhere.
    """

    dtype: np.dtype[Any]
    scaling: StoredScaling
    touches: tuple[bool, bool] = (False, False)
    raw: Mapping[int, NDArray[Any]] | None = None


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """``(i, j, rest)``, a view: all axes behind the second as one, in the order of the file."""
    return array.reshape(*array.shape[:2], -1, order="F")


def slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Parts of the last axis of :func:`flat` that are read and written at once."""
    depth = int(np.prod(shape[2:], dtype=np.int64))
    step = max(1, _SLAB // (shape[0] * shape[1]))
    return paged.paging(slice(start, min(start + step, depth)) for start in range(0, depth, step))


class Decoder:
    """Takes the numbers of a file slab by slab, and becomes one float32 volume and what its writer needs.

    Args:
        shape: of the volume.
        dtype: of the numbers.
        scaling: of the numbers.

    Raises:
        RefusedError: it does not fit into memory.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], scaling: StoredScaling) -> None:
        kept = dtype.itemsize if dtype.itemsize > 2 else 0  # where float32 may not be enough to give the numbers back
        self.array = paged.empty(shape, order="F", beside=kept * math.prod(shape))
        self.unreadable = 0  # voxels that are NaN or infinite
        self._dtype, self._scaling = dtype, scaling
        self._kept: dict[int, NDArray[Any]] = {}
        self._lowest, self._highest = np.inf, -np.inf  # numbers
        self._darkest = np.inf  # finite value
        self._holes: list[slice] = []

    def take(self, where: slice, raw: NDArray[Any]) -> None:
        """Decode the slab ``raw`` ``(i, j, n)``."""
        values = decode(raw, self._scaling)
        flat(self.array)[..., where] = values
        finite = np.isfinite(values)
        holes = int(values.size - np.count_nonzero(finite))
        if holes:
            self.unreadable += holes
            self._holes.append(where)
        if holes < values.size:
            self._darkest = min(self._darkest, float(values.min(where=finite, initial=np.inf)))
        if raw.dtype.kind in "iu":
            self._lowest, self._highest = min(self._lowest, int(raw.min())), max(self._highest, int(raw.max()))
        if holes or not _same_bits(encode(values, raw.dtype, self._scaling), raw):
            self._kept[where.start] = raw.copy(order="F")

    def stored(self) -> StoredValues:
        """What the writer will need. From here on NaN and infinite voxels hold the finite minimum."""
        for where in self._holes:
            values = flat(self.array)[..., where]
            values[~np.isfinite(values)] = self._darkest
        touches = (False, False)
        if self._dtype.kind in "iu":
            limits = np.iinfo(self._dtype)
            touches = (self._lowest == limits.min, self._highest == limits.max)
        return StoredValues(self._dtype, self._scaling, touches, self._kept or None)


def decode(raw: NDArray[Any], scaling: StoredScaling) -> NDArray[np.float32]:
    """Values of on-disk numbers, float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        if scaling.slope is not None:
            raw = raw.astype(np.float64) * scaling.slope + scaling.intercept
        return raw.astype(np.float32)


def encode(values: NDArray[np.float32], dtype: np.dtype[Any], scaling: StoredScaling) -> NDArray[Any]:
    """Numbers for the file; integer types are rounded to nearest and clipped to their ends."""
    wanted: NDArray[Any] = values
    with np.errstate(over="ignore", invalid="ignore"):
        if scaling.slope is not None:
            wanted = (wanted.astype(np.float64) - scaling.intercept) / scaling.slope
        if dtype.kind in "iu":
            wanted = _clip_to(np.rint(wanted.astype(np.float64)), dtype)
        return wanted.astype(dtype)


def fit(array: NDArray[np.float32], stored: StoredValues) -> tuple[StoredScaling, int]:
    """The scaling in which values are written: the source's, where its type holds them.

    A value past an end of an integer type is clipped when the source itself touches that end (it was saturated, or
    zero magnitude); otherwise all numbers get a fresh scaling over the whole type.

    Returns:
        The scaling to put into the header, and how many values will be clipped.

    Raises:
        ValueError: there are NaN or infinite values.
    """
    low, high = _range_of(stored.dtype, stored.scaling)
    below = above = 0
    darkest, brightest = np.inf, -np.inf
    whole = flat(array)
    for where in slabs(array.shape):
        values = whole[..., where]
        ends = float(values.min()), float(values.max())
        if not np.isfinite(ends).all():  # one NaN makes both NaN
            raise ValueError("a volume to be written must be finite, got NaN or infinite voxels; check the restoration")
        darkest, brightest = min(darkest, ends[0]), max(brightest, ends[1])
        below += int(np.count_nonzero(values < low)) if ends[0] < low else 0
        above += int(np.count_nonzero(values > high)) if ends[1] > high else 0
    flipped = stored.scaling.slope is not None and stored.scaling.slope < 0
    may_clip = stored.touches[::-1] if flipped else stored.touches
    if (below and not may_clip[0]) or (above and not may_clip[1]):
        return _fresh_scaling(darkest, brightest, stored.dtype), 0
    return stored.scaling, below + above


def clipped_by(array: NDArray[np.float32], stored: StoredValues) -> int:
    """How many values lie beyond the ends of the type in the source's scaling, and are clipped by :func:`numbers`."""
    low, high = _range_of(stored.dtype, stored.scaling)
    whole = flat(array)
    parts = (whole[..., where] for where in slabs(array.shape))
    return sum(int(np.count_nonzero((part < low) | (part > high))) for part in parts)


def numbers(array: NDArray[np.float32], stored: StoredValues, scaling: StoredScaling) -> Iterator[NDArray[Any]]:
    """Numbers for the file, slab by slab, in the scaling that :func:`fit` chose; unchanged ones are the source's."""
    whole = flat(array)
    for where in slabs(array.shape):
        values = whole[..., where]
        raw = encode(values, stored.dtype, scaling)
        before = (stored.raw or {}).get(where.start) if scaling == stored.scaling else None
        if before is not None:
            held = decode(before, scaling)
            keep = (values == held) | ~np.isfinite(held)
            raw[keep] = before[keep]
        yield raw


def _clip_to(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    limits = np.iinfo(dtype)
    highest = float(limits.max)
    if int(highest) > limits.max:  # 64-bit integers: the nearest float64 lies one past the end
        highest = float(np.nextafter(highest, 0))
    return np.clip(values, float(limits.min), highest)


def _range_of(dtype: np.dtype[Any], scaling: StoredScaling) -> tuple[float, float]:
    """Lowest and highest value that rounds to a number of the type; float types hold every value."""
    if dtype.kind not in "iu":
        return -np.inf, np.inf
    limits = np.iinfo(dtype)
    ends = [float(limits.min) - 0.5, float(limits.max) + 0.5]
    if scaling.slope is not None:
        ends = sorted(end * scaling.slope + scaling.intercept for end in ends)
    return ends[0], ends[1]


def _fresh_scaling(low: float, high: float, dtype: np.dtype[Any]) -> StoredScaling:
    """Spread the values over the whole type; slope and intercept in float32, as NIfTI-1 stores them."""
    limits = np.iinfo(dtype)
    slope = float(np.float32((high - low) / (float(limits.max) - float(limits.min)))) or 1.0
    return StoredScaling(slope, float(np.float32(low - float(limits.min) * slope)))


def _same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    whole = f"u{right.dtype.itemsize}"
    return bool(np.array_equal(np.ascontiguousarray(left).view(whole), np.ascontiguousarray(right).view(whole)))
