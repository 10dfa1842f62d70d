"""Noise as a circle in uniform tissue shows it, and how the noise estimate reads noise of that grain.

The estimate of :mod:`monai_sasm.functional.noise` looks at differences of adjacent pixels. Noise that a reconstruction
kernel, zero filling or a camera has smeared over several pixels differs little there, so that of soft kernels a sixth
is read. People mean the standard deviation in a uniform region; the ratio of both is measured in the image itself.

The noise of CT may be coarse, and a liver is uniform over 16 pixels and more. In MR anatomy is everywhere, so that the
deviation in such a square is half as much again as the noise. There the estimate is believed where noise is white;
where the reconstruction has filtered it, its spectrum tells, see :mod:`monai_sasm.functional.noise_spectrum`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monai_sasm.functional.noise import NoiseEstimator, noise_level, volume_noise_level
from monai_sasm.functional.noise_spectrum import filtered_noise
from monai_sasm.functional.squares import flattened, freedom, squares_of
from monai_sasm.types import ModalityProfile

SLICES = 7  # of a volume, in which noise is measured
FEWEST = 8  # squares
CENTRE = 512  # pixels on each side of the middle of a slice: enough to know its noise
DEPENDENCE = 3.0  # mean over standard deviation from which the noise of a magnitude image is that of tissue
WHITE = 0.93
"""What the estimate reads of white noise of standard deviation 1, in the most uniform squares."""


@dataclass(frozen=True)
class Uniformity:
    """Which squares of tissue count as uniform.

    Args:
        side: of the squares, pixels.
        share: of the squares, those with the least structure after a restoration,
        variance: that have at most so many times the variance of the calmest share before it.
    """

    side: int
    share: float
    variance: float = 3.0


COARSE = Uniformity(side=16, share=0.25)
FINE = Uniformity(side=8, share=0.1)


def uniformity(profile: ModalityProfile) -> Uniformity:
    """The rule for images of a modality."""
    return FINE if profile.rician else COARSE


def uniform_rule(profile: ModalityProfile) -> dict[str, float]:
    """The same for pages that measure by themselves, with the mean over standard deviation that tissue has at least."""
    return asdict(uniformity(profile)) | {"dependence": DEPENDENCE if profile.rician else 0.0}


@dataclass(frozen=True)
class UniformNoise:
    """Noise of the most uniform squares of tissue, in the scale of the images.

    Args:
        deviation: its standard deviation. Where noise is coarse it is up to a fifth too small in CT, for the squares in
            which there happens to be little of it are among the most uniform ones; in MR, whose anatomy counts along, a
            tenth too large at 3 % of white, and no less than 1 to 2 %.
        grain: what the estimate reads of a standard deviation of 1: 0.93 for white noise, 0.15 for soft CT kernels and
            for MR on twice the matrix that was measured.
    """

    deviation: float
    grain: float


def uniform_noise(
    images: NDArray[np.floating], profile: ModalityProfile, estimator: NoiseEstimator
) -> UniformNoise | None:
    """Measure on slices ``(N, c, H, W)`` in working scale; ``None`` where there is too little tissue.

    Args:
        images: of one volume, or a photo.
        profile: says which values are tissue.
        estimator: whose reading is wanted.
    """
    squares = squares_of(np.asarray(images, np.float64), COARSE.side)
    squares = squares[tissue(squares, squares.mean(1), profile)]
    if len(squares) < FEWEST:
        return None
    if profile.rician and (filtered := filtered_noise(squares)) is not None:
        return UniformNoise(filtered, _reading_of_slices(images, estimator) / filtered)
    variance = (flattened(squares) ** 2).sum(1) / freedom(COARSE.side)
    calm = variance <= np.quantile(variance, COARSE.share)
    reading = _reading(squares[calm], estimator)
    if profile.rician:
        return UniformNoise(reading / WHITE, WHITE)
    deviation = float(np.sqrt(variance[calm].mean()))
    return UniformNoise(deviation, reading / deviation)


def _reading(squares: NDArray[np.float64], estimator: NoiseEstimator) -> float:
    """What the estimate reads of such squares, each on its own."""
    one = torch.from_numpy(squares.reshape(-1, 1, COARSE.side, COARSE.side)).float()
    with torch.inference_mode():
        readings = NoiseEstimator(block=COARSE.side, neighbourhood=1)(one).mean((1, 2, 3)).numpy()
    return float(np.quantile(readings, estimator.quantile))


def _reading_of_slices(images: NDArray[np.floating], estimator: NoiseEstimator) -> float:
    """What the networks are told of them."""
    with torch.inference_mode():
        return volume_noise_level([noise_level(estimator(torch.from_numpy(one[None]).float()))[0] for one in images])


def tissue(squares: NDArray[np.float64], mean: NDArray[np.float64], profile: ModalityProfile) -> NDArray[np.bool_]:
    """Which of the squares ``(n, side^2)`` show tissue and are not constant.

    The noise of a magnitude image that is dark against it is less than that of tissue (Gudbjartsson and Patz 1995), and
    all background.

    Args:
        squares: as they came, working scale.
        mean: of each, by which it is judged.
        profile: says which values are tissue.
    """
    low, high = profile.tissue
    found: NDArray[np.bool_] = (mean > low) & (mean < high) & (np.ptp(squares, axis=1) > 0)
    return found & (mean > DEPENDENCE * flattened(squares).std(1)) if profile.rician else found


def spread_evenly(count: int, most: int = SLICES) -> list[int]:
    """Indices of at most ``most`` of ``count`` slices, each in the middle of its part."""
    parts = min(count, most)
    return [int((part + 0.5) * count / parts) for part in range(parts)]


def middle(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle of a slice ``(c, H, W)``, a view."""
    top, left = (max(0, side // 2 - CENTRE) for side in image.shape[-2:])
    return image[:, top : top + 2 * CENTRE, left : left + 2 * CENTRE]
