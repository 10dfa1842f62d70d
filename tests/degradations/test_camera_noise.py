"""Camera noise: variance follows the signal on the sensor, demosaicing correlates colours and neighbours."""

import pytest
import torch

from monai_sasm.degradations.camera_noise import CameraNoise, linear_to_srgb, srgb_to_linear

SHOT = 0.0005  # weak, so that nothing is clipped


def linear_noise(
    grey: float, smoothing: float = 0.0, size: int = 256
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise in linear light ``(3, H, W)`` on a flat photo, the gains, the read variance."""
    noise, clean = CameraNoise((SHOT, SHOT), (smoothing, smoothing)), torch.full((1, 3, size, size), grey)
    params = noise.draw(tuple(clean.shape), torch.Generator().manual_seed(0))
    noisy = noise.apply(clean, params)
    return (srgb_to_linear(noisy) - srgb_to_linear(clean))[0], params.gains.flatten(), params.read


@pytest.mark.parametrize("grey", [0.4, 0.8])
def test_at_its_own_filter_each_colour_has_the_sensors_noise(grey):
    noise, gains, read = linear_noise(grey)
    own = {0: noise[0, ::2, ::2], 1: noise[1, ::2, 1::2], 2: noise[2, 1::2, 1::2]}
    light = srgb_to_linear(torch.tensor(grey))
    for channel, values in own.items():
        expected = gains[channel] * (SHOT * light / gains[channel] + read).sqrt()
        assert float(values.std()) == pytest.approx(float(expected), rel=0.03)


def test_between_filters_of_a_colour_noise_is_the_mean_of_its_neighbours():
    noise, _, _ = linear_noise(0.5)
    left, middle, right = noise[0, ::2, 0:-2:2], noise[0, ::2, 1:-1:2], noise[0, ::2, 2::2]
    torch.testing.assert_close(middle, (left + right) / 2, atol=1e-6, rtol=0)


def test_smoothing_blurs_the_noise_and_not_the_picture():
    sharp, _, _ = linear_noise(0.5)
    smooth, _, _ = linear_noise(0.5, smoothing=0.7)
    assert float(smooth.std()) < 0.75 * float(sharp.std())
    noise, edge = CameraNoise((1e-12, 1e-12), (0.7, 0.7)), torch.zeros(1, 3, 32, 32)
    edge[..., 16:] = 0.5
    noisy = noise.apply(edge, noise.draw((1, 3, 32, 32), torch.Generator().manual_seed(0)))
    torch.testing.assert_close(noisy, edge, atol=1e-4, rtol=0)


def test_the_map_tells_the_sensors_noise_at_mid_grey():
    noise = CameraNoise((SHOT, SHOT), (0.0, 0.0))
    params = noise.draw((1, 3, 256, 256), torch.Generator().manual_seed(0))
    error = noise.apply(torch.full((1, 3, 256, 256), 0.5), params) - 0.5
    green = float(error[0, 1, ::2, 1::2].std())  # gain 1
    assert float(params.sigma.mean()) == pytest.approx(green, rel=0.03)


def test_srgb_and_back():
    values = torch.linspace(0, 1, 257)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(values)), values, atol=1e-6, rtol=0)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)  # IEC 61966-2-1


@pytest.mark.parametrize("arguments", [{"shot": (0.0, 0.1)}, {"shot": (0.2, 0.1)}, {"smoothing": (-1.0, 0.0)}])
def test_wrong_ranges_are_refused(arguments):
    with pytest.raises(ValueError, match="increasing range"):
        CameraNoise(**arguments)


def test_grey_images_are_refused():
    with pytest.raises(ValueError, match="3 channels"):
        CameraNoise().draw((1, 1, 8, 8), torch.Generator())
