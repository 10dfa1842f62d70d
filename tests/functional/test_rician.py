"""Variance of magnitudes: that of drawn ones, at every signal."""

from __future__ import annotations

import math

import pytest
import torch

from monai_sasm.functional.rician import RAYLEIGH, magnitude_variance


@pytest.mark.parametrize("signal", [0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 19.0])
def test_it_is_that_of_drawn_magnitudes(signal: float) -> None:
    sigma, generator = 0.3, torch.Generator().manual_seed(0)
    real, imaginary = sigma * torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    drawn = torch.hypot(signal * sigma + real, imaginary)
    mean_square = torch.tensor(signal**2 + 2, dtype=torch.float64)
    assert sigma**2 * float(magnitude_variance(mean_square)) == pytest.approx(float(drawn.var()), rel=0.01)


def test_it_stays_between_background_and_tissue() -> None:
    variance = magnitude_variance(4 * torch.logspace(-6, 9, 400))  # float32, from nothing to enormous
    assert float(variance.min()) == pytest.approx(2 - math.pi / 2) == RAYLEIGH
    assert float(variance[-200:].min()) > 0.996
    assert float(variance.max()) <= 1
    assert bool((variance.diff() >= -1e-4).all())
