"""Noise of MR that the reconstruction has filtered, from the spectrum of squares of tissue.

Partial sampling of k-space, zero filling to a larger matrix and windows against ringing leave no noise at the corners
of the spectrum, where white noise is as strong as anywhere. Anatomy is strong at its middle. So the squares with least
there are looked at, and the noise of any frequency is taken to be no more than that of those in between.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monai_sasm.functional.squares import flattened

BETWEEN = (0.2, 0.45)  # of half the sampling frequency
COMPARED = (0.3, 0.55)
CORNER = 1.01  # beyond what either axis alone reaches
WHITE_FROM = 0.12
"""Amplitude at the corners over that of frequencies :data:`COMPARED` from which noise counts as white: 0.2 and more
with white noise of half a per cent of white, 0.08 at most where all noise was filtered."""


def filtered_noise(squares: NDArray[np.float64], share: float = 0.1) -> float | None:
    """Standard deviation of filtered noise in squares ``(n, side^2)``; ``None`` where white noise is in them.

    Args:
        squares: of tissue.
        share: of the squares, those with the least anatomy, that are looked at.
    """
    side = round(squares.shape[1] ** 0.5)
    powers, radius = _periodograms(squares, side), _radius(side)
    coarse = radius < BETWEEN[0]
    anatomy = powers[:, coarse].sum(1)
    power = powers[anatomy <= np.quantile(anatomy, share)].mean(0)
    compared = np.median(power[(radius >= COMPARED[0]) & (radius < COMPARED[1])])
    if np.median(power[radius >= CORNER]) >= WHITE_FROM**2 * compared:
        return None
    plateau = np.median(power[(radius >= BETWEEN[0]) & (radius <= BETWEEN[1])])
    return float(np.sqrt(np.where(coarse, plateau, np.minimum(power, plateau)).mean()))


def _periodograms(squares: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Power ``(n, side, side)`` of each frequency; of white noise its variance, everywhere."""
    window = np.outer(*[np.hanning(side + 2)[1:-1]] * 2)
    spectra = np.fft.fft2(flattened(squares).reshape(-1, side, side) * window)
    powers: NDArray[np.float64] = np.abs(spectra) ** 2 / (window**2).sum()
    return powers


def _radius(side: int) -> NDArray[np.float64]:
    """Distance of each frequency from zero, of half the sampling frequency."""
    along = 2 * np.abs(np.fft.fftfreq(side))
    return np.hypot(along[:, None], along)
