"""Lesion fields: sizes, contrasts, numbers and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from monai_sasm.degradations.lesions import LesionParams, Lesions


def one(axes: tuple[float, float], contrast: float = 2.0, angle: float = 0.0, blur: float = 0.3) -> LesionParams:
    """A lesion in the middle of 65 x 65 pixels."""
    return LesionParams(
        centre=torch.full((1, 1, 2), 32.0),
        axes=torch.tensor([[axes]]),
        angle=torch.full((1, 1), angle),
        blur=torch.full((1, 1), blur),
        contrast=torch.full((1, 1), contrast),
        size=(65, 65),
    )


@pytest.mark.parametrize("axes", [(8.0, 8.0), (12.0, 5.0)])
def test_an_ellipse_holds_its_area_times_its_contrast(axes: tuple[float, float]) -> None:
    assert float(one(axes).field.sum()) == pytest.approx(2 * math.pi * axes[0] * axes[1], rel=0.02)
    assert float(one(axes).field[0, 0, 32, 32]) == pytest.approx(2.0, abs=1e-3)


def test_the_first_axis_lies_along_the_rows_and_turns() -> None:
    upright, turned = one((12.0, 4.0)).field[0, 0], one((12.0, 4.0), angle=math.pi / 2).field[0, 0]
    assert upright[42, 32] > 1.9
    assert upright[32, 42] == 0
    torch.testing.assert_close(turned, upright.T, atol=1e-3, rtol=0)


def test_the_edge_is_half_way_and_as_wide_as_its_blur() -> None:
    profile = one((16.0, 16.0), blur=1.5).field[0, 0, 32]
    assert float(profile[48]) == pytest.approx(1.0, abs=1e-3)
    assert float(profile[46]) == pytest.approx(2 * 0.5 * math.erfc(-2 / 1.5 / math.sqrt(2)), rel=1e-3)


def test_draws_keep_their_ranges() -> None:
    lesions = Lesions((0.004, 0.08), diameter=(2.0, 14.0), spacing=(0.5, 1.0), count=(2, 5), elongation=2.0)
    params = lesions.draw((200, 1, 64, 64), torch.Generator().manual_seed(0))
    there = params.contrast != 0
    assert set(there.sum(1).tolist()) == {2, 3, 4, 5}
    size = params.contrast[there].abs()
    assert 0.004 <= float(size.min()) < 0.005
    assert 0.07 < float(size.max()) <= 0.08
    assert 0.4 < float((params.contrast[there] > 0).float().mean()) < 0.6
    mean = params.axes.prod(-1).sqrt()
    assert 1.0 <= float(mean.min()) < 1.5
    assert 12 < float(mean.max()) <= 14.0
    assert float((params.axes[..., 0] / params.axes[..., 1]).max()) <= 2 + 1e-4


def test_senseless_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="contrast must be an increasing range of positive numbers"):
        Lesions((0.0, 1.0))
    with pytest.raises(ValueError, match="count must be an increasing range"):
        Lesions((1.0, 2.0), count=(3, 2))
    with pytest.raises(ValueError, match="elongation is a ratio of at least 1"):
        Lesions((1.0, 2.0), elongation=0.5)
