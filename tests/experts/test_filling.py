"""Holes are filled from what is near, known pixels stay, and nothing that is not finite leaks in."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.experts.filling import fill_holes


def known_outside(height: int, width: int, hole: tuple[slice, slice]) -> torch.Tensor:
    known = torch.ones(1, 1, height, width)
    known[..., hole[0], hole[1]] = 0
    return known


def test_known_pixels_stay_to_the_last_bit() -> None:
    image = torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    known = (torch.rand(2, 1, 33, 47, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    filled = fill_holes(image, known)
    kept = known.expand_as(image) > 0
    assert torch.equal(filled[kept], image[kept])
    assert float(filled.min()) >= 0
    assert float(filled.max()) <= 1, "a mean of means lies between the known values"


def test_a_hole_in_a_constant_vanishes() -> None:
    image = torch.full((1, 3, 40, 56), 0.7)
    known = known_outside(40, 56, (slice(5, 30), slice(10, 50)))
    torch.testing.assert_close(fill_holes(torch.where(known > 0, image, torch.nan), known), image)


@pytest.mark.parametrize("hole", [(slice(0, 64), slice(24, 40)), (slice(10, 50), slice(8, 56))], ids=["band", "block"])
def test_a_ramp_goes_on_through_a_hole(hole: tuple[slice, slice]) -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)  # solves Laplace's equation
    torch.testing.assert_close(fill_holes(ramp, known_outside(64, 64, hole)), ramp, atol=1e-5, rtol=0)


def test_a_curved_membrane_is_close_to_the_exact_one() -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    saddle = (0.5 + (rows**2 - columns**2) / 4 + rows * columns / 4)[None, None]  # harmonic, also on the grid
    filled = fill_holes(saddle, known_outside(96, 96, (slice(16, 80), slice(16, 80))))
    assert float((filled - saddle).abs().max()) < 0.01


def test_near_pixels_count_more() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 32:] = 1
    filled = fill_holes(image, known_outside(64, 64, (slice(20, 24), slice(8, 12))))
    assert float(filled[..., 20:24, 8:12].max()) < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 3)])
def test_any_size_and_no_known_pixel_at_all(size: tuple[int, int]) -> None:
    filled = fill_holes(torch.full((1, 3, *size), torch.nan), torch.zeros(1, 1, *size))
    torch.testing.assert_close(filled, torch.full((1, 3, *size), 0.5))
