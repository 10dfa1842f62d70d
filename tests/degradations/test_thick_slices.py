"""Planes of thick slices are those that thinning starts from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.degradations.slice_profile import SliceProfile
from monai_sasm.degradations.thick_slices import ThickParams, ThickSlices


def params(factor: float, sigma: float = 0.0, rows: int = 60) -> ThickParams:
    """Of one image of 40 columns."""
    return ThickParams(torch.tensor([factor]), torch.full((1, 1, rows, 40), sigma), seed=0)


@pytest.mark.parametrize("kind", ["slab", "sinc"])
def test_rows_are_averaged_and_interpolated_as_thinning_does(kind: str) -> None:
    plane = torch.rand(1, 2, 60, 40, generator=torch.Generator().manual_seed(0))
    found = ThickSlices(profile=kind).apply(plane, params(4.1))
    profile = SliceProfile(15, 60, kind)
    for channel in range(2):
        expected = profile.interpolate(profile.measure(plane[0, channel].numpy()))
        np.testing.assert_allclose(found[0, channel].numpy(), expected, atol=1e-5)
        np.testing.assert_allclose(
            profile.measure(found[0, channel].numpy()), profile.measure(plane[0, channel].numpy()), atol=1e-5
        )


def test_columns_stay_sharp() -> None:
    stripes = torch.zeros(1, 1, 60, 40)
    stripes[..., ::2] = 1
    torch.testing.assert_close(ThickSlices().apply(stripes, params(5.0)), stripes, atol=1e-5, rtol=0)


def test_noise_is_that_of_the_thick_slices() -> None:
    """Measured again, the plane has the Rician noise of what was acquired: sigma where the signal is strong."""
    plane = torch.full((1, 1, 60, 40), 10.0)
    noisy = ThickSlices().apply(plane, params(3.0, 0.5))
    thick = SliceProfile(20, 60).measure(noisy[0, 0].numpy())
    assert thick.std() == pytest.approx(0.5, rel=0.08)


def test_factors_keep_their_range() -> None:
    drawn = ThickSlices((2.0, 6.0), (0.0, 0.02)).draw((500, 1, 8, 8), torch.Generator().manual_seed(0))
    assert 2.0 <= float(drawn.factor.min()) < 2.1
    assert 5.7 < float(drawn.factor.max()) <= 6.0
    assert float(drawn.factor.log().mean()) == pytest.approx(np.log(12) / 2, abs=0.05), "log-uniform"
    assert 0.018 < float(drawn.sigma.max()) <= 0.02


def test_an_image_that_stays_as_it_is_has_no_noise() -> None:
    drawn = ThickSlices((1.0, 1.0), (0.1, 0.1)).draw((2, 1, 8, 8), torch.Generator().manual_seed(0))
    assert not drawn.sigma.any()


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="factor must be an increasing range"):
        ThickSlices(factor=(0.5, 2.0))
    with pytest.raises(ValueError, match="sigma must be an increasing range"):
        ThickSlices(sigma=(0.2, 0.1))
    with pytest.raises(ValueError, match="slice profile is one of"):
        ThickSlices(profile="box")
