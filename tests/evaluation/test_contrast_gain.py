"""Contrast gain: discs of the right volume, gains with known answers, places that are uniform."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from monai_sasm.evaluation.contrast_gain import (
    Disc,
    contrast_gains,
    disc_signal,
    mean_and_error,
    strength_of,
    uniform_places,
)

CENTRES = [(20, 20), (20, 70), (60, 45)]


@pytest.mark.parametrize("disc", [Disc(3, 14), Disc(10, 3), Disc(5, -40)])
def test_a_disc_holds_its_area_times_its_contrast(disc: Disc) -> None:
    signal = disc_signal((80, 96), CENTRES, disc, spacing=0.7, blur=0.5)
    area = math.pi * (disc.diameter / 2 / 0.7) ** 2
    assert float(signal.sum()) == pytest.approx(3 * area * disc.contrast, rel=0.01)
    assert np.sign(signal[20, 20]) == np.sign(disc.contrast)


def test_a_large_disc_has_its_contrast_in_the_middle() -> None:
    assert disc_signal((64, 64), [(32, 32)], Disc(10, 3), spacing=0.7, blur=0.5)[32, 32] == pytest.approx(3, abs=1e-4)
    assert Disc(10, 3).label == "10 mm/3"


def test_a_disc_at_the_border_is_cut() -> None:
    signal = disc_signal((16, 16), [(0, 8)], Disc(5, 10), spacing=1.0, blur=0.5)
    assert signal.shape == (16, 16)
    assert signal[0, 8] == pytest.approx(10, rel=0.01)


def test_known_restorers_have_known_gains() -> None:
    image = np.random.default_rng(0).normal(0, 20, (80, 96)).astype(np.float32)
    signal = disc_signal(image.shape, CENTRES, Disc(5, 7), spacing=0.7, blur=0.5)
    for restore, expected in ((lambda x: x, 1.0), (lambda x: 0.3 * x, 0.3), (np.zeros_like, 0.0)):
        gains = contrast_gains(restore(image), restore(image + signal), signal, centres=CENTRES, radius=2.5 / 0.7)
        assert gains == pytest.approx([expected] * 3, abs=1e-5)


def test_blurring_costs_small_discs_more() -> None:
    image = np.zeros((80, 96), np.float32)
    gains = []
    for disc in (Disc(3, 14), Disc(5, 7), Disc(10, 3)):
        signal = disc_signal(image.shape, CENTRES, disc, spacing=0.7, blur=0.5)
        restored = gaussian_filter(signal, 2.0)
        gains.append(np.mean(contrast_gains(image, restored, signal, centres=CENTRES, radius=disc.diameter / 2 / 0.7)))
    assert 0.2 < gains[0] < gains[1] < gains[2] < 0.9


def test_places_are_uniform_apart_and_always_the_same() -> None:
    image = np.full((128, 128), 40.0, np.float32)
    image[:, 64:] += 200 * (np.indices((128, 64)).sum(0) % 2)  # a checkerboard is no tissue
    image[:64, :64] = -900
    places = uniform_places(image, 1.0, span=(0, 100), spread=5.0, radius=5, gap=15, count=6)
    assert places
    assert places == uniform_places(image, 1.0, span=(0, 100), spread=5.0, radius=5, gap=15, count=6)
    for row, column in places:
        assert row > 64
        assert column < 64
    apart = [math.dist(a, b) for a in places for b in places if a != b]
    assert min(apart) >= 15
    assert uniform_places(image, 1.0, span=(300, 400), spread=5.0) == []


def test_mean_and_standard_error() -> None:
    assert mean_and_error([1.0, 2.0, 3.0]) == pytest.approx((2.0, 1 / math.sqrt(3)))
    assert math.isnan(mean_and_error([1.0])[1])
    assert all(math.isnan(value) for value in mean_and_error([]))


def test_strength_is_found_where_the_noise_is_as_wanted() -> None:
    assert strength_of(lambda w: 90 * (1 - w) + 20 * w, 46) == pytest.approx(44 / 70, abs=1e-4)
    assert strength_of(lambda w: 90 - 70 * w, 10) == 1.0
    assert strength_of(lambda w: 90 - 70 * w, 95) == 0.0
