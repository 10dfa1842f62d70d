"""The three jobs keep their promises whatever the network says, and return the truth when the network knows it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import skimage.data
import torch
from monai.networks.nets import AutoencoderKL
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.degradations.downsampling import downsample, upsample
from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.experts.enhance import (
    CONDITIONS,
    DETAIL,
    FACTORS,
    JOBS,
    PERIOD,
    EnhanceDiffusion,
    base_of,
    enlarged,
    starting_noise,
)
from monai_sasm.experts.filling import fill_holes
from monai_sasm.experts.latent import LatentEnhanceDiffusion, PhotoAutoencoder
from monai_sasm.functional.noise import NoiseEstimator


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(1000, schedule="cosine", prediction_type="v_prediction", clip_sample=False)


class Guess(nn.Module):
    """A network with an opinion: 3 of its input channels are x_t, the others conditions."""

    def __init__(self, channels: int = 3, conditions: int = CONDITIONS) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(channels + conditions, channels, 3, padding=1)
        self.labels: list[int] = []

    def forward(self, x: Tensor, timesteps: Tensor, context: None, class_labels: Tensor) -> Tensor:
        self.labels += class_labels.tolist()
        return self.convolution(x)


class Oracle(nn.Module):
    """Predicts the velocity that leads to a known ``z``."""

    def __init__(self, z: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.z, self.schedule, self.last = z, scheduler().alphas_cumprod, nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor, timesteps: Tensor, context: None, class_labels: Tensor) -> Tensor:
        kept = self.schedule[timesteps].view(-1, 1, 1, 1)
        kept = torch.where((timesteps == 999).view(-1, 1, 1, 1), 0, kept)
        return (kept.sqrt() * x[:, :3] - self.z(x[:, 3:])) / (1 - kept).sqrt()


def photo(height: int = 64, width: int = 80, count: int = 1) -> Tensor:
    crop = torch.from_numpy(skimage.data.astronaut()[60 : 60 + height, 160 : 160 + width].copy())
    return (crop.permute(2, 0, 1)[None].float() / 255).repeat(count, 1, 1, 1)


def model(network: nn.Module | None = None, **keywords: object) -> EnhanceDiffusion:
    return EnhanceDiffusion(network or Guess(), scheduler(), NoiseEstimator(), **keywords).eval()


def knowing(truth: Tensor, scale: float = 0.4) -> EnhanceDiffusion:
    """A model whose network sees the truth; the first three conditions are the base in [-1, 1]."""
    return model(Oracle(lambda condition: (2 * truth - 1 - condition[:, :3]) / scale), scale=[scale] * 4)


def holes(image: Tensor) -> Tensor:
    known = torch.ones_like(image[:, :1])
    known[..., 10:30, 20:50] = 0
    return known


@torch.inference_mode()
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_truth_comes_back_when_the_network_knows_it(steps: int) -> None:
    truth = photo()
    expert = knowing(truth)
    torch.testing.assert_close(
        expert.inpaint(torch.where(holes(truth) > 0, truth, 0.0), holes(truth), steps), truth, atol=2e-4, rtol=0
    )
    torch.testing.assert_close(expert.superresolve(downsample(truth, 4), 4, steps), truth, atol=1e-3, rtol=0)
    expert.steps = steps
    noisy = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(expert(noisy, torch.full_like(truth[:, :1], 0.1)), truth, atol=2e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize(("steps", "eta"), [(1, 0.0), (3, 0.0), (3, 1.0)])
def test_known_pixels_are_exact(steps: int, eta: float) -> None:
    image = photo(count=2) * 1.2 - 0.1  # also outside [0, 1]
    known = holes(image)
    filled = model().inpaint(torch.where(known > 0, image, torch.nan), known, steps, eta)
    kept = known.expand_as(image) > 0
    assert torch.equal(filled[kept], image[kept])
    hole = filled[~kept]
    assert torch.isfinite(hole).all()
    assert 0 <= float(hole.min()) <= float(hole.max()) <= 1
    assert float((hole - fill_holes(image, known)[~kept]).abs().mean()) > 0.005, "the network was asked"


@torch.inference_mode()
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("steps", [1, 3])
def test_an_enlarged_photo_gives_the_small_one_again(factor: int, steps: int) -> None:
    small = downsample(photo(64, 96), factor).clamp(0, 1)
    large = model().superresolve(small, factor, steps)
    assert large.shape == (1, 3, 64, 96)
    assert 0 <= float(large.min()) <= float(large.max()) <= 1
    error = 255 * (downsample(large, factor) - small).abs()
    bicubic = 255 * (downsample(upsample(small, factor), factor) - small).abs()
    assert float(error.mean()) < 0.15, "grey levels"
    assert float(error.mean()) < 0.1 * float(bicubic.mean())
    assert float((large - upsample(small, factor)).abs().mean()) > 0.005, "the network was asked"


@torch.inference_mode()
def test_a_network_that_predicts_nothing_returns_the_base() -> None:
    image, expert = photo(), model(zero_init=True)
    known = holes(image)
    assert torch.equal(expert(image), image)
    torch.testing.assert_close(expert.inpaint(image, known), fill_holes(image, known))
    small = downsample(image, 2).clamp(0, 1)
    assert float((expert.superresolve(small, 2) - enlarged(small, 2)).abs().mean()) < 0.003


@torch.inference_mode()
def test_every_job_has_its_label() -> None:
    network = Guess()
    expert, image = model(network), photo(32, 32, count=2)
    expert(image)
    expert.inpaint(image, holes(image))
    expert.superresolve(image, 4)
    expert.superresolve(image, 2)
    assert network.labels == [0, 0, 3, 3, 2, 2, 1, 1]
    assert [JOBS[index] for index in (0, 3, 2, 1)] == ["denoise", "inpaint", "superresolve x4", "superresolve x2"]


@torch.inference_mode()
def test_conditions_say_what_is_known() -> None:
    seen: list[Tensor] = []
    network = Guess()
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    image = photo()
    model(network).inpaint(image, holes(image))
    model(network)(image, torch.full_like(image[:, :1], 0.1))
    _, filled, detail, known, sigma = seen[0].split([3, 3, 3, 1, 1], 1)
    torch.testing.assert_close(filled, 2 * fill_holes(image, holes(image)) - 1)
    torch.testing.assert_close(detail, (filled - lowpass(filled, DETAIL)) / 0.3, atol=1e-4, rtol=0)
    assert torch.equal(known, holes(image))
    assert not sigma.any()
    torch.testing.assert_close(seen[1][:, 3:6], 2 * image - 1)
    torch.testing.assert_close(seen[1][:, 6:9].mean(), 2 * (image - lowpass(image, DETAIL)).mean() / 0.4)
    assert bool((seen[1][:, 9] == 1).all())
    torch.testing.assert_close(seen[1][:, 10:], torch.full_like(sigma, 0.2))


@torch.inference_mode()
def test_steps_and_seed_matter_and_runs_repeat() -> None:
    image = photo()
    first = model(steps=3).inpaint(image, holes(image))
    assert torch.equal(first, model(steps=3).inpaint(image, holes(image)))
    assert torch.equal(first, model().inpaint(image, holes(image), steps=3))
    assert not torch.equal(first, model(steps=3, seed=1).inpaint(image, holes(image)))
    assert not torch.equal(first, model(steps=2).inpaint(image, holes(image)))
    assert not torch.equal(first, model(steps=3, eta=1.0).inpaint(image, holes(image)))


@torch.inference_mode()
def test_the_network_is_not_shown_the_noise_it_starts_from() -> None:
    shown: list[tuple[int, Tensor]] = []
    network = Guess()
    network.register_forward_pre_hook(
        lambda _, args, kwargs: shown.append((int(kwargs["timesteps"]), args[0])), with_kwargs=True
    )
    model(network, steps=2)(photo(), torch.zeros(1, 1, 64, 80))
    (last, first_input), (later, second_input) = shown
    assert (last, later) == (999, 499)
    assert not first_input[:, :3].any()
    assert torch.equal(first_input[:, 3:6], 2 * photo() - 1)
    kept = float(scheduler().alphas_cumprod[499])
    assert float(second_input[:, :3].std()) > 0.9 * (1 - kept) ** 0.5, "the noise joins in the second step"


@pytest.mark.parametrize("job", list(FACTORS))
def test_what_is_diffused_is_about_one_in_size(job: str) -> None:
    """Which is what the scales are for; a face lacks less than a landscape."""
    clean, label = photo(96, 96), torch.tensor([JOBS.index(job)])
    z = model().lacking(clean, base_of(job, clean, clean, clean[:, :1]), label)
    assert 0.2 < float(z.square().mean().sqrt()) < 1.2
    base = base_of(job, clean, clean, clean[:, :1])
    torch.testing.assert_close(model().completed(z, base, label), clean)


def test_tiles_meet_the_same_noise() -> None:
    whole = starting_noise(torch.zeros(2, 3, 300, 400), 0)
    assert torch.equal(whole[..., PERIOD : PERIOD + 90, 2 * PERIOD :], starting_noise(torch.zeros(2, 3, 90, 144), 0))
    assert torch.equal(whole[0], whole[1])
    assert abs(float(whole.mean())) < 0.02
    assert float(whole.std()) == pytest.approx(1, abs=0.02)
    assert float((whole[..., :PERIOD, : PERIOD - 1] * whole[..., :PERIOD, 1:PERIOD]).mean()) == pytest.approx(
        0, abs=0.02
    )


def test_bases_are_what_the_jobs_start_from() -> None:
    clean, known = photo(), holes(photo())
    noisy = clean + 0.1
    assert torch.equal(base_of("denoise", clean, noisy, known), noisy)
    assert torch.equal(base_of("superresolve x4", clean, noisy, known), enlarged(downsample(clean, 4), 4))
    assert torch.equal(base_of("inpaint", clean, noisy, known), fill_holes(clean, known))


def test_the_base_of_superresolution_is_better_than_bicubic() -> None:
    clean = photo(96, 96)
    for factor in (2, 4):
        small = downsample(clean, factor)
        ours, bicubic = (
            (image - clean).square().mean() for image in (enlarged(small, factor), upsample(small, factor))
        )
        assert float(ours) < 0.96 * float(bicubic)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="factor must be one of"):
        model().superresolve(photo(), 3)
    with pytest.raises(ValueError, match="known must be"):
        model().inpaint(photo(), torch.ones(1, 3, 64, 80))
    for keywords in ({"steps": 0}, {"eta": 2.0}):
        with pytest.raises(ValueError, match="steps must be at least 1"):
            model(**keywords)
    for scale in ([0.4], [0.4, 0.4, 0.4, 0.0]):
        with pytest.raises(ValueError, match="scale must be 4 positive numbers"):
            model(scale=scale)


def latent(zero_init: bool = False) -> LatentEnhanceDiffusion:
    torch.manual_seed(1)
    settings = {"channels": [8], "attention_levels": [False], "num_res_blocks": 1, "norm_num_groups": 4}
    autoencoder = AutoencoderKL(
        2, 48, 48, latent_channels=4, **settings, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False
    )
    expert = LatentEnhanceDiffusion(
        Guess(4, 6),
        PhotoAutoencoder(autoencoder, patch=4),
        scheduler=scheduler(),
        noise_estimator=NoiseEstimator(),
        scale=[1.0] * 4,
        zero_init=zero_init,
    )
    return expert.eval()


@torch.inference_mode()
@pytest.mark.parametrize("size", [(1, 1), (9, 6), (32, 40)])
def test_latents_take_any_size_and_keep_the_promises(size: tuple[int, int]) -> None:
    expert, image = latent(), torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    known = (torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    assert expert.autoencoder(image).shape == image.shape
    assert expert(image).shape == image.shape
    filled, kept = expert.inpaint(image, known, steps=2), known.expand_as(image) > 0
    assert torch.equal(filled[kept], image[kept])
    large = expert.superresolve(image, 2)
    assert large.shape == (1, 3, 2 * size[0], 2 * size[1])
    assert not torch.equal(expert(image), image), "the network was asked"


@torch.inference_mode()
def test_a_latent_network_that_predicts_nothing_returns_the_base() -> None:
    """Or what the autoencoder makes of it, where what it cannot express is noise."""
    image, expert = photo(), latent(zero_init=True)
    torch.testing.assert_close(expert.inpaint(image, holes(image)), fill_holes(image, holes(image)), atol=1e-6, rtol=0)
    torch.testing.assert_close(expert(image), expert.autoencoder(image), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_latents_lack_what_the_images_do() -> None:
    expert, image = latent(), photo()
    base = enlarged(downsample(image, 4), 4)
    job = torch.tensor([JOBS.index("superresolve x4")])
    z = expert.lacking(image, base, job)
    assert z.shape == (1, 4, 16, 20)
    decoded = expert.autoencoder(image) - expert.autoencoder(base)
    torch.testing.assert_close(expert.completed(z, base, job) - base, decoded, atol=1e-5, rtol=0)
    known = holes(image)
    condition = expert.conditions(base, known, torch.full_like(known, 0.1), job)
    assert condition.shape == (1, 6, 16, 20)
    assert float(condition[:, 4].mean()) == pytest.approx(float(known.mean()))
    torch.testing.assert_close(condition[:, 5], torch.full_like(condition[:, 5], 0.2))


def test_the_autoencoder_stays_as_it_was_trained() -> None:
    expert = latent()
    assert not any(parameter.requires_grad for parameter in expert.autoencoder.parameters())
    assert all(parameter.requires_grad for parameter in expert.denoiser.parameters())
