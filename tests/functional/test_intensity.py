"""Scaling laws: invertible, nothing clipped, the same on NumPy and torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from monai_sasm.functional.intensity import Scaling, scaling_for, scalings_for
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

SCALINGS = [Scaling(), Scaling(0.0, 1000.0), Scaling(-12.5, 0.37), Scaling(0.0, 4095.0)]


@pytest.mark.parametrize("scaling", SCALINGS)
def test_inverse_undoes_forward_also_far_outside(scaling: Scaling) -> None:
    values = np.array([-1e6, -3024.0, -1.0, 0.0, 1e-3, 3071.0, 1e7], np.float32)
    working = scaling.forward(values)
    assert working.dtype == np.float32
    np.testing.assert_allclose(scaling.inverse(working), values, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(scaling.inverse_difference(scaling.difference(values)), values, rtol=1e-6)
    np.testing.assert_array_equal(scaling.forward(torch.from_numpy(values)).numpy(), working)


def test_a_difference_has_no_offset() -> None:
    scaling = Scaling(-12.5, 0.5)
    assert scaling.difference(np.float32(2.0)) == 4.0
    assert scaling.forward(np.float32(2.0)) == 29.0


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 0.0), (0.0, -1.0), (0.0, np.nan), (np.inf, 1.0)])
def test_impossible_scalings_are_refused(offset: float, scale: float) -> None:
    with pytest.raises(ValueError, match="scale above 0"):
        Scaling(offset, scale)


def test_ct_and_photos_have_fixed_scalings() -> None:
    array = np.full((1, 4, 5, 6), 300, np.float32)
    assert scaling_for(Volume(array, Modality.CT, np.eye(4), 0)) == Scaling(0.0, 1000.0)
    assert scaling_for(Volume(np.zeros((3, 8, 8), np.float32), Modality.PHOTO)) == Scaling(0.0, 1.0)


def test_mr_white_is_the_bright_tissue_and_ignores_background_and_outliers() -> None:
    rng = np.random.default_rng(0)
    array = np.abs(rng.normal(0, 5, (1, 24, 40, 40))).astype(np.float32)
    tissue = rng.uniform(300, 700, (12, 20, 20)).astype(np.float32)
    array[0, 6:18, 10:30, 10:30] = tissue
    array[0, 0, 0, 0] = 1e6
    white = scaling_for(Volume(array, Modality.MR, np.eye(4), 0)).scale
    assert white == pytest.approx(np.percentile(tissue, 99.5), rel=0.01)


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_constant_mr_is_not_scaled(value: float) -> None:
    assert scaling_for(Volume(np.full((1, 4, 5, 6), value, np.float32), Modality.MR, np.eye(4), 0)).scale == 1.0


def test_large_mr_is_sampled_without_losing_thin_axes() -> None:
    array = np.zeros((1, 3, 1600, 1600), np.float32)
    array[:, :, 400:1200, 400:1200] = np.linspace(100, 900, 800, dtype=np.float32)
    white = scaling_for(Volume(array, Modality.MR, np.eye(4), 0)).scale
    assert white == pytest.approx(896, rel=0.01)


def test_each_time_point_has_its_own_white() -> None:
    """Diffusion: the image at b = 3000 is a tenth as bright as the one without."""
    bright = np.random.default_rng(0).uniform(0, 900, (1, 12, 20, 3)).astype(np.float32)
    volume = Volume(np.concatenate([bright, 0 * bright, bright / 16]), Modality.MR, np.eye(4), slice_axis=2)
    alone = scaling_for(Volume(bright, Modality.MR, np.eye(4), slice_axis=2))
    whites = [one.scale for one in scalings_for(volume)]
    assert whites == [alone.scale] * 3 + [1.0] * 3 + [alone.scale / 16] * 3
    photo = Volume(np.zeros((3, 8, 8), np.float32), Modality.PHOTO)
    assert scalings_for(photo) == [Scaling()]
    assert scalings_for(replace(volume, modality=Modality.CT)) == [Scaling(0.0, 1000.0)] * 9
    assert [one.scale for one in scalings_for(Volume(volume.array[..., 0], Modality.MR))] == pytest.approx(
        [alone.scale, 1.0, alone.scale / 16], rel=0.05
    )
