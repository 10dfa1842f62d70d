"""Images cut to small squares, in which noise and structure are told apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def squares_of(images: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """``(N, c, H, W)`` -> ``(n, side^2)``, side by side; a margin is left out."""
    count, channels, height, width = images.shape
    rows, columns = height // side, width // side
    cut = images[..., : rows * side, : columns * side].reshape(count * channels, rows, side, columns, side)
    return cut.transpose(0, 1, 3, 2, 4).reshape(count * channels * rows * columns, side**2)


def flattened(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the plane that fits each of them best."""
    side = round(squares.shape[1] ** 0.5)
    row, column = np.mgrid[:side, :side].reshape(2, -1) - (side - 1) / 2
    basis = np.stack([np.ones(side**2), row, column])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    return squares - (squares @ basis.T) @ basis


def freedom(side: int) -> int:
    """Degrees of freedom of a square of which a plane was taken off."""
    return side**2 - 3
