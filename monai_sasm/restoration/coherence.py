"""The gate on a volume: asked on every few slices, and its weights smoothed along the stack, so that no organ flickers.

Noise and blur belong to a scan and change slowly along it; what a gate says of single slices changes faster than they
do. Its weights are interpolated linearly between the slices it sees and smoothed by a Gaussian in mm, so wide that a
weight changes by less than a tenth from one slice to the next whatever the gate says. Which slices it sees depends on
the number and the distance of slices alone, and each is worked out when it is first needed and forgotten when it is no
longer: the memory is that of a few maps, however long the volume.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from monai_sasm.functional.neighbours import Placed, stack_distance
from monai_sasm.gate.occupied import confine, occupied
from monai_sasm.gate.routing import enlarge
from monai_sasm.types import ExpertWeights, ImageBatch, Modality

FARTHEST = 10.0  # mm; slices farther apart show other anatomy and are judged one by one
APART = 10.0  # mm between the slices that the gate sees, ...
FEWEST, MOST = 6, 12  # ... but one in so many slices, lest it cost more than a tenth of the experts
BLUR = 10.0  # mm, standard deviation of the Gaussian, ...
LEAST_BLUR = 4.5  # ... but at least so many slices: weights change by less than 0.1 per slice, see :func:`shares`
_REACH = 3.0  # standard deviations after which the Gaussian ends


def slice_distance(volume: Placed) -> float | None:
    """mm between the slices of a volume whose gate weights are made coherent; ``None`` for all other images.

    Those are single slices, photos, stacks without regular positions and stacks of slices far apart.
    """
    return coherent_distance(stack_distance(volume))


def coherent_distance(distance: float | None) -> float | None:
    """mm between slices, or ``None`` where there is no distance, or one too far for coherent weights."""
    return distance if distance and distance <= FARTHEST else None


def seen_slices(count: int, distance: float) -> NDArray[np.int64]:
    """Which of ``count`` slices, ``distance`` mm apart, the gate sees: the middles of equal parts of the stack."""
    every = int(np.clip(np.ceil(APART / distance), FEWEST, MOST))
    parts = max(1, round(count / every))
    return ((np.arange(parts) + 0.5) * count / parts).astype(np.int64)


def shares(count: int, distance: float) -> NDArray[np.float64]:
    """``(count, K)``: what each of the K seen slices adds to the weights of each slice; every row has the sum 1.

    Linear interpolation over the seen slices, constant beyond them, then a Gaussian over slices. Interpolated weights
    in [0, 1] change by 1 / n over n slices at most, and after a Gaussian of standard deviation s slices by no more than
    ``erf(n / (2 sqrt(2) s)) / n < 1 / (sqrt(2 pi) s)``: 0.09 at s = 4.5.
    """
    seen = seen_slices(count, distance)
    spread = max(BLUR / distance, LEAST_BLUR)
    reach = int(np.ceil(_REACH * spread))
    places = np.arange(-reach, count + reach)
    linear = np.stack([np.interp(places, seen, row) for row in np.eye(len(seen))], 1)  # (count + 2 reach, K)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    smooth = np.stack([np.convolve(column, bell / bell.sum(), "valid") for column in linear.T], 1)
    return smooth / smooth.sum(1, keepdims=True)


class _Once:
    """A value that is worked out when it is first asked for, by whichever thread asks first."""

    def __init__(self, work: Callable[[], ExpertWeights]) -> None:
        self._work, self._working = work, Lock()
        self._value: ExpertWeights | None = None

    def __call__(self) -> ExpertWeights:
        with self._working:
            if self._value is None:
                self._value = self._work()
            return self._value


class CoherentWeights:
    """Weights of the slices of one or more stacks, which are asked for in their order, or in any other at more cost.

    Args:
        judge: index of a slice -> the gate's weights ``(1, E, h, w)`` per block of pixels.
        count: slices per stack.
        distance: mm between slices.
        modality: decides where nothing is, see :mod:`monai_sasm.gate.occupied`.
        size: height and width of the slices.
        floor: see :func:`monai_sasm.gate.routing.route`.
        behind: how many slices before the one asked for may still be asked for: by other threads, or in any order.
    """

    def __init__(
        self,
        judge: Callable[[int], ExpertWeights],
        *,
        count: int,
        distance: float,
        modality: Modality,
        size: tuple[int, int],
        floor: float,
        behind: int = 0,
    ) -> None:
        self.judge, self.count, self.modality, self.size = judge, count, modality, size
        self.floor, self.behind = floor, behind
        self.seen, self.shares = seen_slices(count, distance), shares(count, distance)
        self._known: dict[int, _Once] = {}  # index of a slice that the gate sees -> weights
        self._looking = Lock()

    def __call__(self, index: int, image: ImageBatch) -> ExpertWeights:
        """``(1, E, H, W)`` of a slice ``(1, c, H, W)``, working scale; its place in all stacks one after the other.

        Threads may ask for some slices at a time; the gate sees each once.
        """
        needed = self._shares_of(index)
        oldest = min(self._shares_of(max(index - self.behind, 0)))
        with self._looking:
            known = {one: self._known.get(one) or _Once(partial(self.judge, one)) for one in needed}
            kept = {one: value for one, value in self._known.items() if one >= oldest}
            self._known = kept | known
        blocks = reduce(add, (share * known[one]() for one, share in needed.items()))
        return confine(enlarge(blocks.to(image.device), self.size, self.floor), occupied(image, self.modality))

    def _shares_of(self, index: int) -> dict[int, float]:
        """Indices of the slices that the gate sees for a slice -> what each adds to its weights."""
        first, place = index - index % self.count, index % self.count
        return {first + int(self.seen[k]): self.shares[place, k] for k in np.flatnonzero(self.shares[place])}
