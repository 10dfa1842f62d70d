"""A diffusion model that knows each class exactly classifies, generates and denoises as the formulas say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from monai_sasm.experts.diffusion_classifier import DiffusionClassifier
from monai_sasm.functional.noise import NoiseEstimator

CLASSES = 4
SHADES = torch.tensor([-0.6, -0.2, 0.2, 0.6])  # the only image of each class is an even one, in [-1, 1]


class Exact(nn.Module):
    """The true noise, if the image is the even one of its label; the label 'none' is mid-grey."""

    def __init__(self, schedule: Tensor) -> None:
        super().__init__()
        self.schedule, self.images = schedule, 0

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        assert class_labels is not None
        self.images += len(x)
        shade = torch.cat([SHADES, torch.zeros(1)])[class_labels].view(-1, 1, 1, 1)
        kept = self.schedule[timesteps].view(-1, 1, 1, 1)
        return (x - kept.sqrt() * shade) / (1 - kept).sqrt()


def classifier(**settings: Any) -> DiffusionClassifier:
    scheduler = DDIMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, clip_sample=False)
    settings = {"classes": CLASSES, "rounds": ((4, 2), (2, 2)), **settings}
    return DiffusionClassifier(Exact(scheduler.alphas_cumprod), scheduler, NoiseEstimator(), **settings)


def even(labels: Tensor, size: int = 16) -> Tensor:
    return ((SHADES[labels] + 1) / 2).view(-1, 1, 1, 1).expand(-1, 3, size, size)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.4])
def test_the_right_label_wins_at_any_noise(sigma: float) -> None:
    labels = torch.tensor([0, 1, 2, 3, 2])
    noise = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = classifier().classify(even(labels) + sigma * noise, torch.full((5, 1, 16, 16), sigma))
    assert scores.shape == (5, CLASSES)
    assert torch.equal(scores.argmax(1), labels)
    assert torch.equal(scores.amax(1), torch.zeros(5))
    estimated = classifier().classify(even(labels) + sigma * noise)
    assert torch.equal(estimated.argmax(1), labels)


def test_only_the_missing_noise_is_added_and_compared() -> None:
    """The image's noise and ours add up to the noise at t; who knows only the sum errs by 1 - share^2 on ours."""
    model, sigma = classifier(), 0.15
    own = torch.full((1,), 2 * sigma, dtype=torch.double)
    schedule = model.denoiser.schedule
    total = ((1 - schedule[200]) / schedule[200] + (2 * sigma) ** 2).sqrt()
    t = int(((1 - schedule) / schedule).sqrt().sub(total).abs().argmin())
    kept = float(schedule[t])
    share = 1 - kept * (2 * sigma) ** 2 / (1 - kept)
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(20):
        image = even(torch.tensor([1]), 32) + sigma * torch.randn(1, 3, 32, 32, generator=generator)
        noise = torch.randn(3, 32, 32, generator=generator)
        errors.append(model._errors(image, own, torch.tensor([[1, 2]]), 200, noise)[0])
    right, wrong = torch.stack(errors).mean(0).tolist()
    assert right == pytest.approx(1 - share, abs=0.01)
    assert wrong > right + 0.05
    clean = model._errors(even(torch.tensor([1]), 32), 0 * own, torch.tensor([[1]]), 200, noise)
    assert float(clean) == pytest.approx(0, abs=1e-6), "all of the noise is ours, and known"


def test_elimination_asks_as_often_as_it_says_and_finds_the_same() -> None:
    labels = torch.arange(CLASSES)
    model, patient = classifier(), classifier(rounds=((4, 4),))
    assert (model.passes, patient.passes) == (12, 16)
    image, sigma = even(labels), torch.zeros(4, 1, 16, 16)
    fast, full = model.classify(image, sigma), patient.classify(image, sigma)
    assert model.denoiser.network.network.images == 4 * 12
    assert torch.equal(fast.argmax(1), full.argmax(1))
    assert int((fast.argsort(1, descending=True)[:, :2] == full.argsort(1, descending=True)[:, :2]).sum()) == 8


def test_relative_errors_have_mean_one() -> None:
    model, generator = classifier(relative=True), torch.Generator().manual_seed(0)
    image, own = even(torch.tensor([1, 3])), torch.full((2,), 0.3, dtype=torch.double)
    labels = torch.arange(CLASSES).expand(2, -1)
    noise = torch.randn(3, 16, 16, generator=generator)
    for time in (50, 400):
        errors = model._errors(image, own, labels, time, noise)
        torch.testing.assert_close(errors.mean(1), torch.ones(2))
    scores = model.classify(image, torch.full((2, 1, 16, 16), 0.15))
    assert scores.argmax(1).tolist() == [1, 3]


def test_an_image_is_classified_alike_alone_and_in_company() -> None:
    labels = torch.tensor([3, 0, 1])
    image, sigma = even(labels), torch.full((3, 1, 16, 16), 0.05)
    together = classifier().classify(image, sigma)
    alone = torch.cat([classifier().classify(image[[index]], sigma[[index]]) for index in range(3)])
    torch.testing.assert_close(together, alone)


def test_generation_draws_the_class_and_guidance_exaggerates_it() -> None:
    labels = torch.arange(CLASSES)
    plain = classifier().generate(labels, guidance=1.0, steps=5, size=8)
    torch.testing.assert_close(plain, even(labels, 8), atol=1e-3, rtol=0)
    strong = classifier().generate(labels, guidance=1.5, steps=5, size=8)
    torch.testing.assert_close(strong, (1.5 * SHADES + 1).view(-1, 1, 1, 1).expand(-1, 3, 8, 8) / 2, atol=1e-3, rtol=0)
    assert torch.equal(plain, classifier().generate(labels, guidance=1.0, steps=5, size=8))


def test_denoising_needs_no_label() -> None:
    image = torch.full((1, 3, 16, 16), 0.5) + 0.2 * torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(classifier()(image, torch.full((1, 1, 16, 16), 0.2)), torch.full((1, 3, 16, 16), 0.5))


def test_pairs_cover_the_times_evenly() -> None:
    times = [classifier(times=(100, 300))._time(pair) for pair in range(16)]
    assert 100 <= min(times) < max(times) <= 300
    gaps = torch.tensor([100, *sorted(times), 300]).diff()
    assert int(gaps.max()) < 30, "an even spread of 16 would be 12 or 13 apart"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": ((3, 2),)}, "begin with all 4 labels"),
        ({"rounds": ((4, 2), (2, 1), (3, 1))}, "keep fewer"),
        ({"times": (300, 200)}, "times must rise"),
        ({"times": (0, 1000)}, "within 0 to 999"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(**settings)


def test_only_noise_prediction_can_classify() -> None:
    scheduler = DDIMScheduler(num_train_timesteps=10, prediction_type="sample")
    with pytest.raises(ValueError, match="'epsilon'"):
        DiffusionClassifier(nn.Identity(), scheduler, NoiseEstimator(), times=(0, 9))
