"""The estimator reads known noise, follows it over the image and is not fooled by edges."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.functional.noise import NoiseEstimator, noise_level, volume_noise_level


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("channels", [1, 3])
def test_even_noise_is_read_a_few_per_cent_low_at_most(sigma: float, channels: int) -> None:
    """The low quantile that protects against texture costs up to 8 % where there is none."""
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 128).expand(1, channels, 128, 128)
    estimate = NoiseEstimator()(ramp + sigma * torch.randn(1, channels, 128, 128))
    assert estimate.shape == (1, 1, 128, 128)
    assert 0.92 * sigma < float(estimate.mean()) < 1.02 * sigma


def test_uneven_noise_is_followed() -> None:
    torch.manual_seed(0)
    sigma = torch.full((1, 1, 256, 256), 0.05)
    sigma[..., 128:] = 0.2
    estimate = NoiseEstimator()(sigma * torch.randn(1, 1, 256, 256))
    assert float(estimate[..., :64].mean()) == pytest.approx(0.05, rel=0.1)
    assert float(estimate[..., 192:].mean()) == pytest.approx(0.2, rel=0.1)


def test_edges_are_not_noise() -> None:
    image = torch.zeros(1, 1, 128, 128)
    image[..., 40:90, 30:100] = 1
    assert float(NoiseEstimator()(image).max()) < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (3, 3), (17, 5)])
def test_any_size_is_accepted(size: tuple[int, int]) -> None:
    estimate = NoiseEstimator()(torch.rand(2, 1, *size))
    assert estimate.shape == (2, 1, *size)
    assert torch.isfinite(estimate).all()


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="got block=2, neighbourhood=5"):
        NoiseEstimator(block=2)


@pytest.mark.parametrize("height", [1026, 1027, 1042, 1043, 1500, 2066])
def test_bands_of_a_tall_image_give_what_the_whole_gives(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_sasm.functional.noise._BAND", 40 * 16 * 32)
    image = torch.rand(1, 2, height, 40, generator=torch.Generator().manual_seed(0))
    estimator = NoiseEstimator()
    assert torch.equal(estimator._sigmas_of_blocks(image), estimator._block_sigmas(image))


def test_the_level_is_that_of_where_there_is_noise() -> None:
    """Most of a skull-stripped slice is a background of zeros."""
    images = torch.zeros(2, 1, 256, 256)
    images[0, :, 48:208, 48:208] = 0.5 + 0.1 * torch.randn(160, 160, generator=torch.Generator().manual_seed(0))
    assert noise_level(NoiseEstimator()(images)) == [pytest.approx(0.1, rel=0.15), 0.0]
    assert noise_level(torch.full((1, 1, 8, 8), 0.25)) == [0.25]


def test_the_level_of_a_large_map_is_read_off_a_grid() -> None:
    ramp = torch.linspace(0.01, 0.2, 1024).expand(1, 1, 1024, 1024).clone()
    ramp[..., :300] = 0
    assert noise_level(ramp) == [pytest.approx(float(ramp[ramp > 0].median()), rel=2e-3)]
    speck = torch.zeros(1, 1, 1024, 1024)
    speck[..., 500:502, 500:502] = 0.3
    assert noise_level(speck) == [pytest.approx(0.3)], "noise between the places that are looked at"


def test_slices_without_anything_do_not_count() -> None:
    assert volume_noise_level([0.0, 0.0, 0.0, 2.0, 4.0]) == 3.0
    assert volume_noise_level([0.0, 0.0]) == 0.0
    assert volume_noise_level([]) == 0.0
