"""The model observer and the edge response against what is known of them; LCD_CT's own numbers where its images are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from monai_sasm.evaluation.contrast_gain import Disc, disc_signal
from monai_sasm.evaluation.observer import area_under_curve, laguerre_gauss, read
from monai_sasm.evaluation.resolution import edge_response, mtf_at
from monai_sasm.evaluation.statistics import conformal_bound
from monai_sasm.protocols.ct_phantom import BLUR, HALF, INSERTS, OFFSET, PLACES, RING, SPACING
from tests.data import shared


def test_channels_are_orthonormal() -> None:
    """Laguerre-Gauss functions are orthonormal on the plane; pixels sample the narrow ones well."""
    channels = laguerre_gauss(81, 20.0).reshape(5, -1)
    assert channels @ channels.T == pytest.approx(np.eye(5), abs=2e-3)


def test_in_white_noise_the_observer_comes_near_the_ideal_one() -> None:
    """For a signal made of channels d' is its norm over sigma, and AUC is Phi(d' / sqrt 2)."""
    random, side, diameter = np.random.default_rng(0), 31, 9.0
    channels = laguerre_gauss(side, diameter * 2 / 3)
    signal = channels[0] - channels[0].mean()
    signal *= 1.5 / np.linalg.norm(signal)
    absent, present = random.normal(0, 1, (2, 1500, side, side))
    reading = read(absent, present + signal, diameter)
    assert reading.detectability == pytest.approx(1.5, rel=0.12)
    assert reading.auc == pytest.approx(norm.cdf(1.5 / math.sqrt(2)), abs=0.02)
    assert reading.spread < 0.02
    assert read(absent, present, diameter).auc == pytest.approx(0.5, abs=0.03)


def test_area_under_the_curve_counts_pairs() -> None:
    assert area_under_curve(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0])) == pytest.approx((0.5 + 1 + 3) / 6 + 0.0)
    with pytest.raises(ValueError, match="needs four squares of each kind"):
        read(np.zeros((3, 9, 9)), np.zeros((9, 9, 9)), 3.0)


@pytest.mark.parametrize(
    ("dose", "insert", "auc", "detectability"),
    [
        ("010", 0, 0.6525, 0.619661),
        ("010", 3, 0.66, 0.523787),
        ("055", 3, 0.755, 1.037625),
        ("100", 0, 0.875, 1.535448),
    ],
)
def test_it_is_the_observer_of_lcd_ct(dose: str, insert: int, auc: float, detectability: float) -> None:
    """Numbers by DIDSR/LCD_CT's LG_CHO, learnt on every second region and read on the others."""
    with np.load(shared("ct_phantom/mita_lcd_ct_small.npz")) as stored:
        images = stored[f"dose_{dose}__absent"].astype(np.float64) - OFFSET
    disc, middle = INSERTS[insert], (images.shape[-1] - 1) / 2
    centres = [(round(middle + RING * math.sin(a)), round(middle + RING * math.cos(a))) for a in PLACES]
    regions = np.stack(
        [images[:, y - HALF : y + HALF + 1, x - HALF : x + HALF + 1] for y, x in centres], axis=1
    )  # image, place
    signal = disc_signal((2 * HALF + 1,) * 2, [(HALF, HALF)], disc, spacing=SPACING, blur=BLUR)
    absent, present = (one.reshape(-1, *signal.shape) for one in (regions[::2], regions[1::2] + signal))
    every_second = _Interleaved()
    reading = read(absent, present, disc.diameter / SPACING, readers=1, random=every_second)
    assert reading.auc == pytest.approx(auc, abs=1e-6)
    assert reading.detectability == pytest.approx(detectability, abs=1e-5)


class _Interleaved:
    """Stands in for random halves: even places first, then odd ones."""

    def permutation(self, count: int) -> np.ndarray:
        return np.r_[0:count:2, 1:count:2]


def test_the_edge_of_a_blurred_disc_has_the_transfer_function_of_its_blur() -> None:
    """A Gaussian of sigma pixels: MTF exp(-2 (pi sigma f)^2), 50 % at sqrt(ln 2 / 2) / (pi sigma)."""
    sigma = 1.5
    image = disc_signal((129, 129), [(64, 64)], Disc(60, 100), spacing=1.0, blur=sigma)
    edge = edge_response(image, [(64, 64)], 30.0)
    assert edge[0] == pytest.approx(100, abs=0.1)
    assert edge[-1] == pytest.approx(0, abs=0.1)
    for level in (0.5, 0.1):
        assert mtf_at(edge, level) == pytest.approx(math.sqrt(-math.log(level) / 2) / (math.pi * sigma), rel=0.06)
    assert math.isnan(mtf_at(np.zeros(81), 0.5))


def test_the_edge_of_a_small_disc_has_no_gaps() -> None:
    """Around one pixel on the grid some distances do not occur; a gap counted as 0 would be an edge of its own."""
    image = disc_signal((65, 65), [(32, 32)], Disc(32.4, 100), spacing=1.0, blur=0.4)
    edge = edge_response(image, [(32, 32)], 16.2)
    assert edge[:35].min() > 99
    assert mtf_at(edge, 0.5) == pytest.approx(math.sqrt(math.log(2) / 2) / (math.pi * 0.4), rel=0.06)


def test_the_conformal_bound_is_a_rank() -> None:
    assert conformal_bound(np.arange(1, 100)) == 95  # the 95th of 99
    assert conformal_bound(np.arange(19)) == 18
    assert conformal_bound(np.arange(18)) == math.inf
    assert conformal_bound([math.nan, *range(19)]) == 18
    random = np.random.default_rng(0)
    covered = [random.normal() <= conformal_bound(random.normal(size=60)) for _ in range(2000)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
