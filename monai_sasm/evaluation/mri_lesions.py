"""Small lesions put into MR volumes before they are degraded, and what a restorer gives back of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.degradations.lesion_balls import ball
from monai_sasm.evaluation.contrast_gain import uniform_places

Image = NDArray[np.float32]
EDGE = 0.35  # mm, standard deviation of a lesion's edge
GAP = 14.0  # mm, least distance of two lesions in a slice
SPAN, SPREAD, RADIUS = (0.25, 1.0), 0.04, 4.0  # working scale and mm, of the places
ERASED = 0.5  # share of a lesion's signal below which it counts as erased
SEEN = 1.0  # mm, standard deviation of the filter with which lesions are looked for
INVENTED = 0.08  # working scale, of the filtered error that counts as an invented lesion
FLAT = 0.03  # working scale, largest deviation of the clean surroundings in which one is looked for


@dataclass(frozen=True)
class Ball:
    """A lesion: diameter in mm, contrast as a share of white, either sign."""

    diameter: float
    contrast: float

    @property
    def label(self) -> str:
        """As printed, ``3 mm/-20 %``."""
        return f"{self.diameter:g} mm/{100 * self.contrast:g} %"


BALLS = (Ball(2, 0.3), Ball(2, -0.3), Ball(3, 0.2), Ball(3, -0.2), Ball(4, 0.1), Ball(4, -0.1))


@dataclass(frozen=True, eq=False)
class Placed:
    """Lesions in a stack.

    Args:
        signal: what is added, ``(N, H, W)``, working scale.
        balls: kind of each lesion.
        masks: where each lies, a box in the stack and the pixels in it with at least half of its contrast.
    """

    signal: Image
    balls: tuple[Ball, ...]
    masks: tuple[tuple[tuple[slice, ...], NDArray[np.bool_]], ...]

    def shares(self, response: Image) -> list[float]:
        """Recovered share of each lesion's signal: sum of the response over that of the signal, where it lies."""
        return [
            float(response[box][mask].sum(dtype=np.float64) / self.signal[box][mask].sum(dtype=np.float64))
            for box, mask in self.masks
        ]


def place(clean: Image, sides: Sequence[float], slices: Sequence[int], *, first: int = 0, count: int = 6) -> Placed:
    """Lesions at the most uniform places of some slices; kinds take turns.

    Args:
        clean: ``(N, H, W)``, working scale.
        sides: of a voxel, mm, in the order of the axes.
        slices: where centres may lie.
        first: which of :data:`BALLS` begins.
        count: at most so many in a slice.
    """
    signal = np.zeros_like(clean)
    balls: list[Ball] = []
    masks = []
    spacing = float(math.sqrt(sides[1] * sides[2]))
    for index in slices:
        found = uniform_places(clean[index], spacing, span=SPAN, spread=SPREAD, radius=RADIUS, gap=GAP, count=count)
        for row, column in found:
            kind = BALLS[(first + len(balls)) % len(BALLS)]
            at, radius = (index, row, column), kind.diameter / 2
            box, values = ball(clean.shape, at, radius, EDGE, sides=sides, dtype=torch.float64)
            share = values.numpy().astype(np.float32)
            signal[box] += np.float32(kind.contrast) * share
            balls.append(kind)
            masks.append((box, share >= 0.5))
    return Placed(signal, tuple(balls), tuple(masks))


def invented(clean: Image, start: Image, restored: Image, *, sides: Sequence[float]) -> int:
    """Blobs of at least :data:`INVENTED` in flat tissue of a restored stack that are neither in the clean one nor in
    what it was restored from.

    Args:
        clean, start, restored: ``(N, H, W)``, working scale, without lesions; ``start`` on the same grid.
        sides: of a voxel, mm, in the order of the axes.
    """
    from scipy.ndimage import gaussian_filter, label, uniform_filter

    sigma = [0.0, *(SEEN / side for side in sides[1:])]
    error, error_before = (gaussian_filter((one - clean).astype(np.float32), sigma) for one in (restored, start))
    smooth = gaussian_filter(clean, sigma)
    size = [1, *(max(3, 2 * round(RADIUS / side / 2) + 1) for side in sides[1:])]
    mean = uniform_filter(smooth, size)
    flat = np.sqrt(np.maximum(uniform_filter(smooth * smooth, size) - mean * mean, 0)) < FLAT
    new = flat & (smooth > SPAN[0]) & (np.abs(error_before) < INVENTED / 2)
    return int(sum(label(new & (sign * error > INVENTED))[1] for sign in (1, -1)))
