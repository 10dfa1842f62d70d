"""Noise by kind of tissue, in images of patients: what is said of one kind holds for pixels well within it.

The noise of a kind is the mode of the standard deviations in small windows that lie within it, the global noise index
of Christianson et al. 2015 (Automated technique to measure noise in clinical CT examinations, AJR 205(1)): windows that
hold anatomy are the tail of that distribution and do not move its mode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_sasm.types import Modality

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
WINDOW = 6.0  # mm, side of the windows
LEAST, MOST = 5, 15  # pixels, side of a window
FEWEST = 200  # pixels of a kind, below which nothing is said of it
BINS = 60  # of the histogram of standard deviations
SMOOTHED = 2.0  # pixels, standard deviation, before a pixel is told to a kind


@dataclass(frozen=True)
class Tissue:
    """A kind of tissue: values from ``low`` to ``high`` after smoothing, HU for CT, percent of white for MR.

    A window with a standard deviation above ``spread`` after smoothing holds edges, and is none of the kind.
    """

    name: str
    low: float
    high: float
    spread: float


TISSUES = {
    Modality.CT: (
        Tissue("air", -1100, -850, spread=25),
        Tissue("fat", -140, -50, spread=25),
        Tissue("soft tissue", 0, 120, spread=25),
        Tissue("bone", 250, 2000, spread=60),
    ),
    Modality.MR: (
        Tissue("dark", 12, 35, spread=3),
        Tissue("middle", 35, 65, spread=3),
        Tissue("bright", 65, 120, spread=5),
    ),
}
"""In print order."""
BODY = {Modality.CT: -500.0, Modality.MR: 10.0}
"""What is above it, after smoothing, is patient."""


def kinds(clean: Image, tissues: Sequence[Tissue], window: int) -> dict[str, Mask]:
    """Kind -> pixels ``(H, W)`` whose window, ``window`` pixels wide, lies within the kind.

    Args:
        clean: the slice as free of noise as there is, in the unit of the tissues.
    """
    from scipy.ndimage import gaussian_filter, minimum_filter

    smooth = gaussian_filter(clean.astype(np.float32), SMOOTHED)
    spread = local_deviation(smooth, window)
    return {
        one.name: minimum_filter((smooth >= one.low) & (smooth <= one.high), window, mode="constant")
        & (spread <= one.spread)
        for one in tissues
    }


def clipped_near(image: Image, window: int, trained: tuple[float, float] | None) -> Mask:
    """Pixels ``(H, W)`` in whose window values are clipped, which hides noise: at the darkest value of the slice, as
    air is stored, or at the ends of what networks were trained on, beyond which they change nothing.

    Args:
        image: the slice as it came.
        window: side, pixels.
        trained: those ends, in the unit of the slice.
    """
    from scipy.ndimage import maximum_filter

    low, high = trained or (-np.inf, np.inf)
    ends = (image <= max(low, float(image.min()))) | (image >= high)
    return np.asarray(maximum_filter(ends, window, mode="constant"))


def body_of(clean: Image, above: float) -> Mask:
    """Pixels ``(H, W)`` of the patient, holes filled."""
    from scipy.ndimage import binary_fill_holes, gaussian_filter

    return np.asarray(binary_fill_holes(gaussian_filter(clean.astype(np.float32), SMOOTHED) > above))


def window_side(spacing: float) -> int:
    """Side of a window in pixels, odd, for pixels of ``spacing`` mm."""
    return min(max(2 * round(WINDOW / spacing / 2) + 1, LEAST), MOST)


def local_deviation(image: Image, window: int) -> Image:
    """Standard deviation in the window around each pixel, ``(H, W)``."""
    from scipy.ndimage import uniform_filter

    values = image.astype(np.float64)
    mean = uniform_filter(values, window)
    variance = uniform_filter(values * values, window) - mean * mean
    return np.sqrt(np.maximum(variance, 0) * window**2 / (window**2 - 1)).astype(np.float32)


def noise_index(deviations: NDArray[np.floating]) -> float:
    """Mode of the standard deviations of all windows of a kind; NaN where there are fewer than :data:`FEWEST`."""
    from scipy.ndimage import gaussian_filter1d

    if len(deviations) < FEWEST:
        return float("nan")
    top = float(np.percentile(deviations, 95))
    if top <= 0:
        return 0.0
    counts, edges = np.histogram(deviations, BINS, range=(0, 1.05 * top))
    peak = int(np.argmax(gaussian_filter1d(counts.astype(float), 1.5)))
    return float((edges[peak] + edges[peak + 1]) / 2)
