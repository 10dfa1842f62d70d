"""A model observer that reads images for a known signal: channelised Hotelling, with Laguerre-Gauss channels.

Channels of width h and order j (Gallas and Barrett 2003, Validating the use of channels to estimate the ideal linear
observer, JOSA A 20(9)):

    u_j(r) = sqrt(2) / h exp(-pi r^2 / h^2) L_j(2 pi r^2 / h^2),   L_j the Laguerre polynomials

The template ``w = K^-1 (mean present - mean absent)`` is learnt in channel space, K being the mean of the two
covariance matrices, and used on images that it was not learnt on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
CHANNELS = 5
WIDTH = 2 / 3  # of the channels, over the diameter of the signal
READERS = 10  # random halves to learn on


class Shuffler(Protocol):
    """What puts things in an order, as :class:`numpy.random.Generator` does."""

    def permutation(self, count: int, /) -> NDArray[Any]:
        """The numbers below ``count``."""


@dataclass(frozen=True)
class Reading:
    """How well a signal is told from its absence.

    Args:
        auc: area under the ROC curve, mean over the readers; 0.5 is chance.
        spread: standard deviation of the readers.
        detectability: signal to noise ratio of the decision variable, mean.
    """

    auc: float
    spread: float
    detectability: float


def laguerre_gauss(side: int, width: float, count: int = CHANNELS) -> Array:
    """Channels ``(count, side, side)``; ``width`` h in pixels."""
    from scipy.special import eval_laguerre

    place = np.arange(side) - (side - 1) / 2
    square = (place[:, None] ** 2 + place[None, :] ** 2) / width**2
    profile = np.sqrt(2) / width * np.exp(-np.pi * square)
    return np.stack([profile * eval_laguerre(order, 2 * np.pi * square) for order in range(count)])


def read(
    absent: Array, present: Array, diameter: float, *, readers: int = READERS, random: Shuffler | None = None
) -> Reading:
    """Study on images ``(N, S, S)`` without and with the signal in their middle.

    Args:
        absent, present: at least four of each.
        diameter: of the signal, pixels.
        readers: each learns on a random half and reads the other.
        random: gives the halves; the same ones each time by default.

    Raises:
        ValueError: too few images, or no squares.
    """
    if (
        min(len(absent), len(present)) < 4
        or absent.shape[1:] != present.shape[1:]
        or absent.shape[1] != absent.shape[2]
    ):
        raise ValueError(f"an observer needs four squares of each kind, got {absent.shape} and {present.shape}")
    channels = laguerre_gauss(absent.shape[1], WIDTH * diameter).reshape(CHANNELS, -1)
    without, with_ = (_seen(images, channels) for images in (absent, present))
    random, found = random or np.random.default_rng(0), []
    for _ in range(readers):
        (learn_without, test_without), (learn_with, test_with) = _halves(without, random), _halves(with_, random)
        covariance = (np.cov(learn_without, rowvar=False) + np.cov(learn_with, rowvar=False)) / 2
        template = np.linalg.pinv(covariance) @ (learn_with.mean(0) - learn_without.mean(0))
        low, high = test_without @ template, test_with @ template
        noise = np.sqrt((low.var(ddof=1) + high.var(ddof=1)) / 2)
        found.append((area_under_curve(low, high), float((high.mean() - low.mean()) / max(float(noise), 1e-12))))
    areas, snr = np.array(found).T
    return Reading(float(areas.mean()), float(areas.std(ddof=1)) if readers > 1 else float("nan"), float(snr.mean()))


def area_under_curve(low: Array, high: Array) -> float:
    """Probability that a value of ``high`` exceeds one of ``low``, ties half (Mann and Whitney 1947)."""
    difference = high[:, None] - low[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def _seen(images: Array, channels: Array) -> Array:
    """Channel outputs ``(N, channels)``; the mean of each image is taken off, which no eye sees."""
    flat = images.reshape(len(images), -1).astype(np.float64)
    return (flat - flat.mean(1, keepdims=True)) @ channels.T


def _halves(values: Array, random: Shuffler) -> tuple[Array, Array]:
    order = random.permutation(len(values))
    middle = len(values) // 2
    return values[order[:middle]], values[order[middle:]]
