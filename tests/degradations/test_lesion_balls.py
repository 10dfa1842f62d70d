"""Balls in stacks: their volume times their contrast, in tissue only, continued through the slices."""

from __future__ import annotations

import math

import pytest
import torch

from monai_sasm.degradations.lesion_balls import LesionBalls, ball


def test_a_ball_holds_its_volume_times_its_contrast() -> None:
    field = torch.zeros(41, 41, 41)
    box, values = ball(field.shape, (20, 20, 20), 8.0, 0.4, height=0.5)
    field[box] = values
    assert float(field.sum()) == pytest.approx(0.5 * 4 / 3 * math.pi * 8**3, rel=0.02)
    assert float(field[20, 20, 20]) == pytest.approx(0.5, abs=1e-3)
    assert float(field[28, 20, 20]) == pytest.approx(0.25, abs=1e-3), "half way at the radius, along the slices as well"
    torch.testing.assert_close(field, field.transpose(0, 2))


def test_a_ball_is_round_in_millimetres_and_cut_off_at_the_border() -> None:
    box, values = ball((40, 40, 40), (1, 20, 38), 6.0, 0.4, sides=(3.0, 1.0, 1.5), dtype=torch.float64)
    assert box == (slice(0, 5), slice(12, 29), slice(33, 40))
    assert values.dtype is torch.float64
    assert float(values[3, 8, 5]) == pytest.approx(0.5), "two slices of 3 mm from the centre, at the radius"
    assert float(values[1, 14, 5]) == float(values[1, 8, 1]) == pytest.approx(0.5)


def test_balls_lie_in_tissue_and_never_below_zero() -> None:
    stack = torch.zeros(12, 60, 60)
    stack[:, 20:40, 20:40] = 0.4
    lesions = LesionBalls((0.1, 0.5), diameter=(2.0, 5.0), density=2e-3)
    field = lesions.draw(stack, torch.Generator().manual_seed(0))
    assert field.shape == stack.shape
    assert float(field.abs()[:, :16].max()) == 0, "no lesion further from tissue than it is large"
    assert float((stack + field).min()) >= 0
    assert float(field.max()) > 0.1
    assert float(field.min()) < -0.1
    again = lesions.draw(stack, torch.Generator().manual_seed(0))
    assert torch.equal(field, again)


def test_where_there_is_no_tissue_there_are_no_lesions() -> None:
    field = LesionBalls((0.1, 0.5)).draw(torch.zeros(4, 30, 30), torch.Generator().manual_seed(0))
    assert not field.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contrast": (0.0, 0.1)}, "contrast must be an increasing range"),
        ({"contrast": (0.1, 0.2), "tissue": (1.0, 0.5)}, "tissue must be an increasing range"),
        ({"contrast": (0.1, 0.2), "density": -0.1}, "density counts balls per voxel"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LesionBalls(**settings)
