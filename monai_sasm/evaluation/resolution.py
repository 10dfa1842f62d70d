"""Resolution from the edges of discs: edge response, line response, modulation transfer function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
STEP = 0.2  # pixels, of the edge response
REACH = 8.0  # pixels on either side of the edge


def edge_response(image: Array, centres: Sequence[tuple[int, int]], radius: float) -> Array:
    """Value by distance from the edge of discs, from :data:`REACH` inside to as much outside, in :data:`STEP`.

    Means over pixels of about the same distance, interpolated at the steps: pixels lie at few distances from a centre
    on the grid, and some steps have none.

    Args:
        image: ``(H, W)``, the discs alone.
        centres: row and column of each.
        radius: pixels.
    """
    rows, columns = np.indices(image.shape)
    steps = np.arange(-REACH, REACH + STEP / 2, STEP)
    edges = np.append(steps - STEP / 2, steps[-1] + STEP / 2)
    count, place, value = np.zeros(len(steps)), np.zeros(len(steps)), np.zeros(len(steps))
    for row, column in centres:
        distance = (np.hypot(rows - row, columns - column) - radius).ravel()
        count += np.histogram(distance, edges)[0]
        place += np.histogram(distance, edges, weights=distance)[0]
        value += np.histogram(distance, edges, weights=image.ravel())[0]
    seen = count > 0
    return np.interp(steps, place[seen] / count[seen], value[seen] / count[seen])


def mtf_at(edge: Array, level: float) -> float:
    """Frequency, cycles per pixel, at which the modulation transfer function falls to ``level``.

    The line response is the derivative of the edge response; the function is its spectrum over that at frequency 0.

    Returns:
        0.5, the Nyquist frequency, where it stays above; NaN where there is no edge.
    """
    from scipy.signal.windows import tukey

    line = -np.gradient(edge, STEP) * tukey(len(edge), 0.25)
    frequency = np.linspace(0, 0.5, 501)
    place = (np.arange(len(edge)) - (len(edge) - 1) / 2) * STEP
    transfer = np.abs(np.exp(-2j * np.pi * frequency[:, None] * place) @ line)
    if transfer[0] <= 0:
        return float("nan")
    below = np.flatnonzero(transfer / transfer[0] < level)
    return float(frequency[below[0]]) if len(below) else 0.5
