"""The diffusion denoiser: starts at the photo's noise level, keeps colours, and leaves clean photos alone."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.diffusion.pinning import pin_low_frequencies
from monai_sasm.experts.ddpm import DdpmExpert
from monai_sasm.functional.noise import NoiseEstimator

SIGMA = 25 / 255


class TrueNoise(nn.Module):
    """Knows the clean photo, and so predicts the noise exactly; counts its calls."""

    def __init__(self, clean: Tensor, schedule: Tensor, cast: float = 0.0) -> None:
        super().__init__()
        self.clean, self.schedule, self.cast = 2 * (clean + cast) - 1, schedule, cast
        self.times: list[list[int]] = []

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.times.append(timesteps.tolist())
        kept = self.schedule[timesteps].view(-1, 1, 1, 1).to(x)
        return (x - kept.sqrt() * self.clean.to(x)) / (1 - kept).sqrt()


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)


def photos(count: int = 2) -> tuple[Tensor, Tensor]:
    """Clean and noisy photos."""
    random = torch.Generator().manual_seed(0)
    clean = torch.rand(count, 3, 1, 1, generator=random).expand(-1, -1, 64, 80) * 0.6 + 0.2
    return clean, clean + SIGMA * torch.randn(clean.shape, generator=random)


def expert(clean: Tensor, cast: float = 0.0, **options: object) -> DdpmExpert:
    network = TrueNoise(clean, scheduler().alphas_cumprod, cast)
    return DdpmExpert(network, scheduler(), NoiseEstimator(), **options)  # type: ignore[arg-type]


def sigma_map(image: Tensor, sigma: float = SIGMA) -> Tensor:
    return torch.full_like(image[:, :1], sigma)


@pytest.mark.parametrize("steps", [1, 3, 80])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_perfect_network_restores_the_photo_in_any_number_of_steps(steps: int, eta: float) -> None:
    clean, noisy = photos()
    restored = expert(clean, steps=steps, eta=eta, pin=0.0)(noisy, sigma_map(noisy))
    torch.testing.assert_close(restored, clean, atol=1e-4, rtol=0)


def test_sampling_begins_where_the_noise_is_the_photos() -> None:
    clean, noisy = photos()
    model = expert(clean, steps=1)
    model(noisy, sigma_map(noisy))
    assert model.denoiser.network.times == [[56, 56]], "sqrt((1 - a) / a) = 2 * 25 / 255 at t = 56"


def test_a_map_counts_as_its_root_mean_square() -> None:
    clean, noisy = photos()
    model, uneven = expert(clean, steps=1), sigma_map(noisy, 0.0)
    uneven[1, :, :, :40] = SIGMA * 2**0.5  # no noise in the first image, SIGMA on average in the second
    restored = model(noisy, uneven)
    assert model.denoiser.network.times == [[0, 56]]
    assert torch.equal(restored[0], noisy[0]), "without noise there is nothing to do"
    assert not torch.equal(restored[1], noisy[1])


def test_the_level_is_estimated_when_not_given() -> None:
    clean, noisy = photos()
    model = expert(clean, steps=1)
    model(noisy)
    assert all(abs(t - 56) < 8 for t in model.denoiser.network.times[0])


def test_pinning_takes_a_colour_cast_back() -> None:
    clean, noisy = photos()
    cast = expert(clean, cast=0.05, steps=1, pin=0.0)(noisy, sigma_map(noisy))
    pinned = expert(clean, cast=0.05, steps=1, pin=16.0)(noisy, sigma_map(noisy))
    assert float((cast - clean).mean()) == pytest.approx(0.05, abs=1e-4)
    assert abs(float((pinned - clean).mean())) < 0.002
    torch.testing.assert_close(pinned, pin_low_frequencies(cast, noisy, 16.0))


def test_a_known_mean_is_subtracted() -> None:
    clean, noisy = photos()
    plain = expert(clean, steps=1)(noisy, sigma_map(noisy))
    shifted = expert(clean, steps=1, mean=0.1)(noisy + 0.1, sigma_map(noisy))
    torch.testing.assert_close(shifted, plain, atol=1e-5, rtol=0)


def test_arguments_of_a_call_replace_the_configured_ones() -> None:
    clean, noisy = photos()
    configured = expert(clean, cast=0.05, steps=3, eta=0.5, pin=4.0)
    given = expert(clean, cast=0.05)(noisy, sigma_map(noisy), steps=3, eta=0.5, pin=4.0)
    assert torch.equal(given, configured(noisy, sigma_map(noisy)))
    assert not torch.equal(given, configured(noisy, sigma_map(noisy), pin=0.0))


def test_fresh_noise_is_drawn_from_the_seed() -> None:
    """The same photo comes out the same every time, with fresh noise, too."""

    class Half(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            return 0.5 * x

    _, noisy = photos()
    first, again, other = (
        DdpmExpert(Half(), scheduler(), NoiseEstimator(), steps=4, eta=1.0, seed=seed)(noisy, sigma_map(noisy))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_starting_as_the_identity() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network

        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            return self.layers(x)

    _, noisy = photos()
    model = DdpmExpert(Plain(), scheduler(), NoiseEstimator(), steps=5, zero_init=True)
    torch.testing.assert_close(model(noisy), noisy, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"steps": 0}, {"pin": -1.0}, {"eta": 1.5}, {"eta": -0.1}])
def test_senseless_options_are_refused(options: dict[str, float]) -> None:
    clean, noisy = photos()
    with pytest.raises(ValueError, match="steps must be at least 1, pin at least 0, eta in"):
        expert(clean, **options)
    with pytest.raises(ValueError, match="steps must be at least 1, pin at least 0, eta in"):
        expert(clean)(noisy, **options)
