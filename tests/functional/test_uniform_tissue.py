"""Noise of uniform tissue: what was put in, white or coarse, beside structure and background."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from monai_sasm.degradations.filtered_noise import FilteredNoise
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.squares import squares_of
from monai_sasm.functional.uniform_tissue import CENTRE, WHITE, middle, spread_evenly, uniform_noise
from monai_sasm.types import Modality

CT, MR = Modality.CT.profile, Modality.MR.profile


def noise(coarse: float, slices: int = 3, side: int = 320) -> np.ndarray:
    """Of standard deviation 1, smeared by a Gaussian of so many pixels; ``(N, 1, H, W)``."""
    drawn = np.random.default_rng(0).standard_normal((slices, 1, side, side))
    smeared = gaussian_filter(drawn, (0, 0, coarse, coarse))
    return smeared / smeared.std()


def body(side: int = 320) -> np.ndarray:
    """Tissue of 0.04 with a shade, stripes in a quarter of it, air around."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    tissue = 0.04 + 0.02 * x + np.where((x < 0) & (y < 0), 0.05 * np.sign(np.sin(300 * x)), 0)
    return np.where(np.hypot(x, y) < 0.45, tissue, -1.0)


@pytest.mark.parametrize("coarse", [0.0, 0.6, 1.0])
def test_deviation_and_grain_are_those_of_the_noise(coarse: float) -> None:
    estimator, alone = NoiseEstimator(), noise(coarse)
    found = uniform_noise(body() + 0.03 * alone, CT, estimator)
    assert found is not None
    assert 0.8 * 0.03 < found.deviation < 1.02 * 0.03
    grain = float(estimator(torch.from_numpy(alone)).median())
    assert {0.0: 0.94, 0.6: 0.44, 1.0: 0.08}[coarse] == pytest.approx(grain, rel=0.1)
    assert found.grain == pytest.approx(grain, rel=0.2)


def test_dark_magnitudes_are_no_tissue() -> None:
    """At 12 % the background of an MR image is brighter than the darkest tissue, and has two thirds of its noise."""
    side, sigma = 320, 0.12
    y, x = np.mgrid[:side, :side] / side - 0.5
    clean = np.where(np.hypot(x, y) < 0.25, 0.7, 0.0)
    real, imaginary = sigma * np.random.default_rng(1).standard_normal((2, 3, 1, side, side))
    found = uniform_noise(np.hypot(clean + real, imaginary), MR, NoiseEstimator())
    assert found is not None
    assert found.deviation == pytest.approx(sigma, rel=0.12)


@pytest.mark.parametrize("background", [True, False])
def test_anatomy_is_not_taken_for_the_noise_of_mr(background: bool) -> None:
    """There is structure in every square, of twice the noise."""
    side, sigma, draw = 320, 0.04, np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] / side - 0.5
    clean = np.where(np.hypot(x, y) < 0.35, 0.6 + gaussian_filter(draw.standard_normal((side, side)), 4), 0.0)
    real, imaginary = sigma * draw.standard_normal((2, 3, 1, side, side))
    shown = np.hypot(clean + real, imaginary)
    found = uniform_noise(shown if background else np.where(clean > 0, shown, 0.0), MR, NoiseEstimator())
    assert found is not None
    assert found.deviation == pytest.approx(sigma, rel=0.15)
    assert found.grain == WHITE


@pytest.mark.parametrize(
    ("factor", "apodisation", "grain"), [(1.4, 0.4, 0.32), (2.0, 0.1, 0.23), (1.6, 0.6, 0.12), (1.0, 0.5, 0.53)]
)
def test_filtered_noise_of_mr_is_not_taken_for_little(factor: float, apodisation: float, grain: float) -> None:
    side, sigma, draw = 320, 0.04, torch.Generator().manual_seed(2)
    y, x = np.mgrid[:side, :side] / side - 0.5
    anatomy = 0.05 * gaussian_filter(np.random.default_rng(1).standard_normal((side, side)), 4) / 0.07
    clean = torch.from_numpy(np.where(np.hypot(x, y) < 0.4, 0.6 + anatomy, 0.0)).float().expand(3, 1, -1, -1)
    model = FilteredNoise((sigma, sigma), (factor, factor), (apodisation, apodisation))
    found = uniform_noise(model.apply(clean, model.draw((3, 1, side, side), draw)).numpy(), MR, NoiseEstimator())
    assert found is not None
    assert found.deviation == pytest.approx(sigma, rel=0.3)
    assert found.grain == pytest.approx(grain, rel=0.35)


def test_too_little_tissue_is_none() -> None:
    assert uniform_noise(np.zeros((2, 1, 64, 64)), CT, NoiseEstimator()) is None  # constant
    assert uniform_noise(0.03 * noise(0.0, 1, 40), CT, NoiseEstimator()) is None  # four squares
    assert uniform_noise(0.03 * noise(0.0, 1, 12), CT, NoiseEstimator()) is None  # none
    assert uniform_noise(-0.9 + 0.01 * noise(0.0), CT, NoiseEstimator()) is None  # lung


def test_squares_lie_side_by_side() -> None:
    images = np.arange(2 * 2 * 33 * 50, dtype=np.float64).reshape(2, 2, 33, 50)
    squares = squares_of(images, 16)
    assert squares.shape == (2 * 2 * 2 * 3, 256)
    np.testing.assert_array_equal(squares[4].reshape(16, 16), images[0, 0, 16:32, 16:32])
    assert squares_of(images[..., :12], 16).shape == (0, 256)


def test_slices_are_spread_and_large_ones_cut() -> None:
    assert spread_evenly(300, 7) == [21, 64, 107, 150, 192, 235, 278]
    assert spread_evenly(2, 7) == [0, 1]
    large = np.zeros((1, 2 * CENTRE + 7, 30), np.float32)
    assert middle(large).shape == (1, 2 * CENTRE, 30)
