"""How thick slices average the body, and the finest thin slices that agree with them, along the slice axis.

``n`` thick slices and ``m >= n`` thin ones share one extent: thick slice ``i`` has the part ``[i/n, (i+1)/n]`` of it,
thin slice ``k`` the part ``[k/m, (k+1)/m]``. Both profiles are linear, ``y = W x`` with ``W`` (n, m):

- ``slab``, a 2-D acquisition whose pulse excites one slice after another: the mean of the thin slices by their overlap.
- ``sinc``, a 3-D acquisition that encodes the slice axis in phase: k-space truncation, here of the cosine transform
  (DCT-II), that is of the Fourier series of the stack mirrored at its ends, so that neck and vertex do not meet.

``S`` (m, n) with ``W S = 1`` gives thin slices back: for ``sinc`` zero filling, for ``slab`` the derivative of the
cubic spline through the running integral (histospline; Boneva, Kendall and Stefanov 1971). ``x + S (y - W x)`` is then
any restored ``x`` made to agree with what was measured, and smooth in what it adds.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PROFILES = ("slab", "sinc")


class SliceProfile:
    """``W`` and ``S`` of one slice profile.

    Args:
        thick: number of acquired slices, at least 2.
        thin: number of thin slices, at least ``thick``.
        kind: ``"slab"`` or ``"sinc"``.

    Example:
        >>> import numpy as np
        >>> from monai_sasm.degradations.slice_profile import SliceProfile
        >>> halved = SliceProfile(thick=11, thin=22)
        >>> slab = halved.measure(np.ones((22, 64, 64), np.float32))  # (11, 64, 64)
    """

    def __init__(self, thick: int, thin: int, kind: str = "slab") -> None:
        if kind not in PROFILES:
            raise ValueError(f"the slice profile is one of {PROFILES}, got {kind!r}")
        if not 2 <= thick <= thin:
            raise ValueError(f"a profile needs at least 2 thick and as many thin slices or more, got {thick}, {thin}")
        self.thick, self.thin, self.kind = thick, thin, kind

    def measure(self, thin: NDArray[np.float32]) -> NDArray[np.float32]:
        """Thin slices ``(m, ...)`` -> the thick ones ``(n, ...)`` a scanner would have acquired, ``W x``."""
        return _along_first(self.averaging, thin)

    def interpolate(self, thick: NDArray[np.float32]) -> NDArray[np.float32]:
        """Thick slices ``(n, ...)`` -> smooth thin ones ``(m, ...)`` that average to them, ``S y``."""
        return _along_first(self.interpolation, thick)

    def consistent(self, thin: NDArray[np.float32], thick: NDArray[np.float32]) -> NDArray[np.float32]:
        """``thin`` ``(m, ...)``, changed as smoothly as need be to average to the measured ``thick`` ``(n, ...)``."""
        return thin + self.interpolate(thick - self.measure(thin))

    @cached_property
    def averaging(self) -> NDArray[np.float64]:
        """``W`` (n, m); rows sum to 1."""
        if self.kind == "sinc":
            return np.asarray(_cosines(self.thick).T @ _cosines(self.thin)[: self.thick]) * self._gain
        left, right = np.arange(self.thick)[:, None] / self.thick, np.arange(1, self.thick + 1)[:, None] / self.thick
        first, last = np.arange(self.thin) / self.thin, np.arange(1, self.thin + 1) / self.thin
        overlap = np.minimum(right, last) - np.maximum(left, first)
        return np.asarray(overlap.clip(min=0) * self.thick)

    @cached_property
    def interpolation(self) -> NDArray[np.float64]:
        """``S`` (m, n); ``averaging @ interpolation`` is the identity."""
        if self.kind == "sinc":
            return np.asarray(_cosines(self.thin)[: self.thick].T @ _cosines(self.thick)) / self._gain
        integral = np.concatenate([np.zeros((1, self.thick)), np.tri(self.thick)]) / self.thick
        # A natural end of the integral is a flat end of the slices: the body goes on as at the last one.
        spline = np.diff(_natural_spline(integral, np.linspace(0, self.thick, self.thin + 1)), axis=0) * self.thin
        # Where thin slices straddle two thick ones, their means differ a little from the integral's.
        return np.asarray(spline @ np.linalg.inv(self.averaging @ spline))

    @property
    def _gain(self) -> float:
        return float(np.sqrt(self.thick / self.thin))


def _along_first(matrix: NDArray[np.float64], stack: NDArray[np.float32]) -> NDArray[np.float32]:
    """``matrix`` times ``stack`` along its first axis, float32."""
    flat = np.ascontiguousarray(stack, np.float32).reshape(len(stack), -1)
    return np.asarray((matrix.astype(np.float32) @ flat).reshape(len(matrix), *stack.shape[1:]))


def _natural_spline(knots: NDArray[np.float64], where: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic spline through ``knots`` (n, columns) at 0, 1, ..., without curvature at its ends, at ``where``."""
    curvature = np.zeros_like(knots)
    inner = len(knots) - 2
    system = 4 * np.eye(inner) + np.eye(inner, k=1) + np.eye(inner, k=-1)
    curvature[1:-1] = np.linalg.solve(system, 6 * np.diff(knots, n=2, axis=0))
    left = np.minimum(where.astype(int), len(knots) - 2)
    ahead = (where - left)[:, None]
    behind = 1 - ahead
    bend = (behind**3 - behind) * curvature[left] + (ahead**3 - ahead) * curvature[left + 1]
    return np.asarray(behind * knots[left] + ahead * knots[left + 1] + bend / 6)


def _cosines(count: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II, (frequency, sample)."""
    frequency, sample = np.arange(count)[:, None], np.arange(count)
    waves = np.cos(np.pi * frequency * (2 * sample + 1) / (2 * count)) * np.sqrt(2 / count)
    waves[0] /= np.sqrt(2)
    return np.asarray(waves)
