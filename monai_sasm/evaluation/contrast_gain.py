"""Contrast gain: how much of a small, faint lesion's contrast a restorer gives back.

A known signal s is put into an image y, and both versions are restored:

    gain = sum_D (E(y + s) - E(y)) / sum_D s,    D the lesion's disc

1 is kept, 0 is erased, and noise is the same in both versions and drops out, however non-linear the restorer is. The
identity has gain 1 exactly. Contrast-to-noise ratios from MTF and NPS, measured apart, flatter non-linear denoisers;
signals put into patient images do not (Solomon et al. 2020, Medical Physics 47(9); Racine et al. 2016, Physica Medica
32(12)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
FINE = 8  # sub-pixels along each axis of a pixel at a disc's edge
MARGIN = 3.0  # standard deviations of the blur beyond which a disc has ended
SMOOTHED = 2.0  # pixels, standard deviation, before uniformity is judged
STEP = 4  # pixels between the places that are looked at


@dataclass(frozen=True)
class Disc:
    """A lesion: ``diameter`` in mm, ``contrast`` in the unit of the image, either sign."""

    diameter: float
    contrast: float

    @property
    def label(self) -> str:
        """As printed, ``3 mm/14``."""
        return f"{self.diameter:g} mm/{self.contrast:g}"


def disc_signal(
    shape: tuple[int, int], centres: Sequence[tuple[int, int]], disc: Disc, *, spacing: float, blur: float
) -> Image:
    """Discs on a plane ``(H, W)``, each pixel the mean over its area, then blurred as the scanner blurs.

    Args:
        shape: (height, width).
        centres: row and column of each, pixels.
        disc: see :class:`Disc`.
        spacing: pixel size, mm.
        blur: standard deviation of the scanner's point spread function, mm.
    """
    from scipy.ndimage import gaussian_filter

    radius = disc.diameter / 2 / spacing
    reach = math.ceil(radius + MARGIN * blur / spacing) + 1
    fine = (np.arange((2 * reach + 1) * FINE) + 0.5) / FINE - reach - 0.5
    inside = fine[:, None] ** 2 + fine[None, :] ** 2 <= radius**2
    stamp = inside.reshape(2 * reach + 1, FINE, 2 * reach + 1, FINE).mean((1, 3))
    stamp = disc.contrast * gaussian_filter(stamp, blur / spacing, mode="constant")
    plane = np.zeros((shape[0] + 2 * reach, shape[1] + 2 * reach))
    for row, column in centres:
        plane[row : row + 2 * reach + 1, column : column + 2 * reach + 1] += stamp
    return plane[reach : reach + shape[0], reach : reach + shape[1]].astype(np.float32)


def uniform_places(
    image: Image,
    spacing: float,
    *,
    span: tuple[float, float],
    spread: float,
    radius: float = 7.5,
    gap: float = 30.0,
    count: int = 6,
) -> list[tuple[int, int]]:
    """Centres, row and column, of the most uniform places of an image ``(H, W)``: always the same for one image.

    Args:
        image: the cleanest version there is.
        spacing: pixel size, mm.
        span: lowest and highest value that may occur there, after smoothing.
        spread: largest standard deviation there, after smoothing.
        radius: of the place, mm.
        gap: least distance of two centres, mm, so that no lesion is seen beside another.
        count: at most so many.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image.astype(np.float64), SMOOTHED)
    reach = math.ceil(radius / spacing)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = rows**2 + columns**2 <= (radius / spacing) ** 2
    found = []
    for row in range(reach, image.shape[0] - reach, STEP):
        for column in range(reach, image.shape[1] - reach, STEP):
            if not span[0] <= smooth[row, column] <= span[1]:
                continue
            values = smooth[row - reach : row + reach + 1, column - reach : column + reach + 1][disc]
            if span[0] <= values.min() and values.max() <= span[1] and values.std() <= spread:
                found.append((float(values.std()), row, column))
    chosen: list[tuple[int, int]] = []
    for _, row, column in sorted(found):
        if all(math.hypot(row - r, column - c) * spacing >= gap for r, c in chosen):
            chosen.append((row, column))
    return chosen[:count]


def contrast_gains(
    restored: Image, restored_with: Image, signal: Image, *, centres: Sequence[tuple[int, int]], radius: float
) -> list[float]:
    """Gain at each centre: sum of the response over that of the signal, within ``radius`` pixels.

    Args:
        restored: ``(H, W)``, restored without the signal.
        restored_with: the same with it.
        signal: what was added, ``(H, W)``.
        centres: row and column of each disc.
        radius: of the disc, pixels.
    """
    rows, columns = np.indices(signal.shape)
    response = restored_with.astype(np.float64) - restored
    gains = []
    for row, column in centres:
        inside = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        gains.append(float(response[inside].sum() / signal[inside].sum(dtype=np.float64)))
    return gains


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and its standard error; the latter NaN for a single value, both for none."""
    if not len(values):
        return math.nan, math.nan
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(np.mean(values)), error


def strength_of(noise: Callable[[float], float], wanted: float, steps: int = 20) -> float:
    """Strength in [0, 1] at which the noise is as ``wanted``: bisection of ``noise(strength)``, which falls.

    1 where even the whole restoration leaves more noise, 0 where the input has less.
    """
    if noise(0.0) <= wanted:
        return 0.0
    low, high = 0.0, 1.0
    if noise(1.0) >= wanted:
        return 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if noise(middle) > wanted else (low, middle)
    return (low + high) / 2
