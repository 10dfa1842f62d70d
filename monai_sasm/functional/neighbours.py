"""Slices between their neighbours: what a 2-D network may see of a volume beside the slice that it restores (2.5-D).

Neighbours tell what a slice lacks where they show nearly the same anatomy, so they are shown only where slices follow
each other about as closely as pixels. Anywhere else, and where there is but one slice, the slice stands in for them: a
network with neighbours takes single slices, too.

A slab is ``(B, 2 n + 1, H, W)``: slices in their order along the stack, the one to be restored in the middle.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, repeat
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CLOSE = 1.5  # distance of slices over distance of pixels up to which neighbours are shown
_SQUARE = 1e-3  # cosine up to which the slices lie exactly behind each other
T = TypeVar("T")


def adjacent(affine: NDArray[np.float64] | Tensor | None, slice_axis: int | None, spatial: int = 3) -> bool:
    """Whether slices lie straight behind each other, at most :data:`CLOSE` times as far apart as pixels.

    Args:
        affine: ``(4, 4)`` voxel to mm; ``None`` for images without a place in space.
        slice_axis: which voxel index counts the slices; ``None`` for 2-D images.
        spatial: number of voxel indices.
    """
    if affine is None or slice_axis is None or spatial != 3:
        return False
    axes = np.asarray(affine, np.float64)[:3, :3]
    sides = np.linalg.norm(axes, axis=0)
    if not sides.all():
        return False
    directions = axes / sides
    cosines = np.delete(np.abs(directions.T @ directions[:, slice_axis]), slice_axis)
    return bool(sides[slice_axis] <= CLOSE * np.delete(sides, slice_axis).min() and cosines.max() <= _SQUARE)


class Placed(Protocol):
    """What :func:`neighbours_of` asks of a :class:`monai_sasm.io.volume.Volume`."""

    @property
    def array(self) -> NDArray[np.float32]: ...
    @property
    def affine(self) -> NDArray[np.float64] | None: ...
    @property
    def slice_axis(self) -> int | None: ...
    @property
    def geometry(self) -> str: ...


def neighbours_of(volume: Placed, count: int) -> int:
    """``count`` where the slices of a volume are :func:`adjacent` and at equal steps, else 0."""
    regular = volume.geometry in ("regular", "multiframe")
    return count if regular and adjacent(volume.affine, volume.slice_axis, volume.array.ndim - 1) else 0


def stack_distance(volume: Placed) -> float | None:
    """mm between the slices of a volume that lie at equal steps; ``None`` for single slices and all other images."""
    axis, regular = volume.slice_axis, volume.geometry in ("regular", "tilted", "multiframe")
    if axis is None or volume.affine is None or volume.array.ndim != 4 or not regular:
        return None
    distance = float(np.linalg.norm(volume.affine[:3, axis]))
    return distance if volume.array.shape[axis + 1] > 1 and distance > 0 else None


def slabs(slices: Iterable[T], count: int, length: int) -> Iterator[list[T]]:
    """Each slice with ``count`` before and after it, read no further ahead than that.

    Args:
        slices: of one or more stacks, one after the other.
        count: neighbours on each side; where a stack ends, its last slice is repeated.
        length: slices per stack.
    """
    waiting = iter(slices)
    while (first := next(waiting, None)) is not None:
        stack = chain([first], (one for _, one in zip(range(length - 1), waiting, strict=False)))
        yield from _windows(stack, count)


def run_on_slices(
    run: Callable[[Tensor], Tensor], slices: Iterable[Tensor], *, batch: int = 1, neighbours: int = 0, length: int = 1
) -> Iterator[Tensor]:
    """``run`` on every slice, a few at a time; read no further ahead than a batch and its neighbours.

    Args:
        run: ``(n, (2 neighbours + 1) c, H, W)``, slices between their neighbours -> ``(n, ...)``.
        slices: ``(c, H, W)`` each, of one or more stacks, one after the other.
        batch: slices per call, ``n`` or fewer.
        neighbours: slices on each side.
        length: slices per stack.

    Yields:
        The result of each slice in its order.
    """
    for slab in batches(slices, batch=batch, neighbours=neighbours, length=length):
        yield from run(slab)


def batches(slices: Iterable[Tensor], *, batch: int = 1, neighbours: int = 0, length: int = 1) -> Iterator[Tensor]:
    """Slices between their neighbours ``(n, (2 neighbours + 1) c, H, W)``; arguments as for :func:`run_on_slices`."""
    around = slabs(slices, neighbours, length)
    while windows := list(islice(around, batch)):
        several = [window[0] if len(window) == 1 else torch.cat(window) for window in windows]
        yield several[0][None] if len(several) == 1 else torch.stack(several)


def fit_neighbours(image: Tensor, count: int, channels: int = 1) -> Tensor:
    """The slab with ``count`` neighbours in ``image``, which may hold more of them, or none.

    Args:
        image: ``(B, channels, H, W)`` or ``(B, (2 m + 1) channels, H, W)`` with ``m >= count``.
        count: neighbours on each side.
        channels: of one slice.

    Returns:
        ``(B, (2 count + 1) channels, H, W)``; a slice without neighbours stands in for them.

    Raises:
        ValueError: the number of channels is another one.
    """
    given, wanted = image.shape[1], (2 * count + 1) * channels
    if given == wanted:
        return image
    if given == channels:
        return image.repeat(1, 2 * count + 1, 1, 1)
    more = (given - wanted) // (2 * channels)  # not divmod, which tracing does not know
    if (given - wanted) % (2 * channels) or more < 0:
        raise ValueError(
            f"expected {channels} channels, or {wanted} for a slice between {count} neighbours on each side, "
            f"got {tuple(image.shape)}"
        )
    return image[:, more * channels : given - more * channels]


def _windows(stack: Iterable[T], count: int) -> Iterator[list[T]]:
    size = 2 * count + 1
    window: deque[T] = deque(maxlen=size)
    for one in stack:
        window.extend(repeat(one, 1 if window else count + 1))
        if len(window) == size:
            yield list(window)
    for _ in range(count if window else 0):
        window.append(window[-1])
        if len(window) == size:
            yield list(window)
