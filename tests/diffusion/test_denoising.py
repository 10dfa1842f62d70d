"""Every kind of prediction becomes the same clean image; a measured noise level becomes its place on the schedule."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from monai_sasm.diffusion.denoising import Denoiser, level, noise_to_signal, start_time
from tests.diffusion.schedules import Affine, images, noised, scheduler


class Constant(nn.Module):
    """Predicts the same whatever it is shown."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.prediction


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_true_prediction_gives_the_clean_image(prediction: str) -> None:
    clean, noise, t = images(4, 3, 5, 6), images(4, 3, 5, 6, seed=1), torch.tensor([0, 40, 500, 999])
    monai = scheduler(prediction)
    velocity = monai.get_velocity(clean, noise, t)
    truth = {"epsilon": noise, "sample": clean, "v_prediction": velocity}[prediction]
    # the last level keeps 0.6 % of the image: float32 levels leave an error of 1e-4 there
    found = Denoiser(Constant(truth), monai).denoise(noised(clean, noise, t), t)
    torch.testing.assert_close(found, clean, atol=2e-4, rtol=0)


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_estimate_is_monais(prediction: str, kind: type) -> None:
    monai = kind(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False,
                 prediction_type=prediction)  # fmt: skip
    x, network = images(1, 3, 4, 4), Affine()
    for t in (0, 57, 998):
        with torch.no_grad():
            _, expected = monai.step(network(x, torch.tensor([t])), t, x)
            found = Denoiser(network, monai)(x, torch.tensor([t]))
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-6)


def test_label_and_condition_reach_the_network() -> None:
    class Wide(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor) -> Tensor:
            return x[:, :3] * 0 + x[:, 3:].mean(1, keepdim=True) + class_labels.view(-1, 1, 1, 1)

    x, condition = images(2, 3, 4, 4), images(2, 2, 4, 4, seed=1)
    found = Denoiser(Wide(), scheduler("sample")).denoise(x, torch.tensor([3, 9]), torch.tensor([1, 5]), condition)
    expected = condition.mean(1, keepdim=True).expand_as(x) + torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(found, expected)


def test_an_unlabelled_network_is_called_without_label() -> None:
    network = Affine()
    Denoiser(network, scheduler()).denoise(images(1, 3, 4, 4), torch.tensor([3]))
    assert network.calls[0][2] is None


def test_unknown_predictions_are_refused() -> None:
    monai = scheduler()
    monai.prediction_type = "score"
    with pytest.raises(ValueError, match=r"prediction_type must be one of .*got 'score'"):
        Denoiser(Affine(), monai)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_levels_are_not_rounded(dtype: torch.dtype) -> None:
    clean, noise, t = images(2, 3, 8, 8), images(2, 3, 8, 8, seed=1), torch.tensor([3, 57])
    found = Denoiser(Constant(noise.to(dtype)), scheduler()).denoise(noised(clean, noise, t).to(dtype), t)
    assert found.dtype == dtype
    # t = 3 has a noise of 0.02; had its level been rounded to bfloat16, none would have been taken away
    error = (found.double() - clean)[0].std()
    assert float(error) < (0.008 if dtype == torch.bfloat16 else 1e-6)


def test_half_precision_leaves_the_schedule_alone() -> None:
    denoiser = Denoiser(Affine(), scheduler()).to(torch.bfloat16)
    assert denoiser.schedule.dtype == torch.float32
    assert list(denoiser.state_dict()) == ["network.scale"], "a schedule is configuration, not weights"


def test_level_of_the_clean_image_is_one() -> None:
    schedule, like = scheduler().alphas_cumprod, images(3, 1, 2, 2)
    found = level(schedule, torch.tensor([-1, 0, 999]), like)
    assert found.shape == (3, 1, 1, 1)
    assert found.flatten().tolist() == pytest.approx([1.0, 0.9999, 4.0358e-05], rel=1e-4)


def test_start_time_finds_its_own_levels() -> None:
    schedule = scheduler().alphas_cumprod
    times = torch.tensor([0, 1, 57, 250, 999])
    assert torch.equal(start_time(noise_to_signal(schedule)[times], schedule), times)


def test_start_time_of_the_usual_noise() -> None:
    """25 of 255 grey levels are 50 of 255 in images from -1 to 1: alpha_bar = 1 / (1 + (50 / 255)^2) = 0.9630."""
    schedule = scheduler().alphas_cumprod
    t = start_time(torch.tensor([50 / 255]), schedule)
    assert float(schedule[t]) == pytest.approx(0.9630, abs=0.001)
    assert int(t) == 56


def test_hardly_any_noise_is_none() -> None:
    smallest = float(noise_to_signal(scheduler().alphas_cumprod)[0])
    sigma = torch.tensor([0.0, 0.49 * smallest, 0.51 * smallest, 1e6])
    assert start_time(sigma, scheduler().alphas_cumprod).tolist() == [-1, -1, 0, 999]
