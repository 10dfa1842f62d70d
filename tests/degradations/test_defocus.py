"""Defocus draws points as discs, keeps light, and touches only its region."""

from __future__ import annotations

import math

import pytest
import torch

from monai_sasm.degradations.defocus import Defocus, DefocusParams


def test_a_point_becomes_a_disc_of_the_same_light() -> None:
    image = torch.zeros(1, 3, 31, 31)
    image[..., 15, 15] = 1.0
    params = DefocusParams(torch.tensor([5.0]), torch.ones(1, 1, 31, 31))
    disc = Defocus().apply(image, params)[0, 0]
    assert disc.sum().item() == pytest.approx(1.0, abs=1e-5)
    # constant inside, nothing outside, and the area of a disc of radius 5
    assert disc[15, 11:20].std().item() == pytest.approx(0.0, abs=1e-7)
    assert disc[15, 21:].abs().max() == 0.0
    assert 1 / disc[15, 15].item() == pytest.approx(math.pi * 5**2, rel=0.02)


def test_each_image_of_a_batch_has_its_own_radius_and_region() -> None:
    image = torch.rand(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(3, 1, 40, 40)
    region[..., :20] = 1
    blurred = Defocus().apply(image, DefocusParams(torch.tensor([0.0, 2.0, 6.0]), region))
    assert torch.equal(blurred[..., 20:], image[..., 20:])
    assert torch.equal(blurred[0], image[0])
    inner = [blurred[index, 0, 8:32, 8:12].std().item() for index in range(3)]
    assert inner[0] > 2 * inner[1] > 2 * inner[2]


@pytest.mark.slow
def test_probability_is_the_share_of_images_out_of_focus() -> None:
    drawn = Defocus(radius=(2.0, 4.0), probability=0.25).draw((400, 1, 8, 8), torch.Generator().manual_seed(0))
    assert (drawn.radius > 0).float().mean().item() == pytest.approx(0.25, abs=0.06)
    assert bool((drawn.mask[drawn.radius == 0] == 0).all())


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match="radius must be an increasing range"):
        Defocus(radius=(3.0, 1.0))
    with pytest.raises(ValueError, match="probability must lie in"):
        Defocus(probability=1.5)
