"""DDIM against MONAI's scheduler, against exact denoisers, and with different images of a batch at different times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_sasm.diffusion.denoising import Denoiser, level
from monai_sasm.diffusion.sampling import ddim, spaced_times
from tests.diffusion.schedules import Affine, images, noised, scheduler

SCHEDULE = scheduler().alphas_cumprod


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("first", [999, 399, 19], ids=["from pure noise", "midway", "one step left"])
def test_ddim_is_monais_on_its_regular_grid(prediction: str, eta: float, first: int) -> None:
    monai = scheduler(prediction)
    monai.set_timesteps(50)  # step() walks strides of 20; the grid of set_timesteps itself is not quite regular
    times = torch.arange(first, -1, -20)
    x, network = images(2, 3, 4, 5), Affine()
    random = torch.Generator().manual_seed(7)
    expected = x
    with torch.no_grad():
        for t in times.tolist():
            last = t - 20 < 0  # the last step adds no noise
            expected, _ = monai.step(
                network(expected, torch.tensor([t, t])), t, expected, 0.0 if last else eta, None if last else random
            )
        found = ddim(Denoiser(network, monai), x, times, SCHEDULE, eta, torch.Generator().manual_seed(7))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_times_from_pure_noise_are_the_regular_grid() -> None:
    times = spaced_times(torch.tensor([999]), 50)
    assert times.flatten().tolist() == list(range(999, -1, -20))


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 200])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_an_exact_denoiser_recovers_the_image_in_any_number_of_steps(steps: int, eta: float) -> None:
    clean, noise, start = images(3, 3, 4, 4), images(3, 3, 4, 4, seed=1), torch.tensor([2, 57, 999])
    times = spaced_times(start, steps)
    found = ddim(lambda x, t: clean, noised(clean, noise, start), times, SCHEDULE, eta)
    assert torch.equal(found, clean)


def test_without_fresh_noise_the_noise_stays_the_same_on_the_way() -> None:
    """With the true clean image, x_t at every time is the image noised by the very noise it began with."""
    clean, noise, start = images(2, 3, 4, 4), images(2, 3, 4, 4, seed=1), torch.tensor([57, 700])
    seen: list[Tensor] = []
    times = spaced_times(start, 6)
    ddim(lambda x, t: clean, noised(clean, noise, start), times, SCHEDULE, observe=lambda x, _: seen.append(x))
    assert len(seen) == 6
    for x, t in zip(seen[:-1], times[1:], strict=True):
        torch.testing.assert_close(x, noised(clean, noise, t), atol=1e-5, rtol=1e-5)


def test_fresh_noise_keeps_the_level() -> None:
    """With eta 1 the sampler stays on the schedule: x_t has variance 1 - alpha_bar_t about the image."""
    clean, start = torch.zeros(1, 1, 300, 300, dtype=torch.float64), torch.tensor([400])
    seen: list[Tensor] = []
    times = spaced_times(start, 5)
    x = noised(clean, images(1, 1, 300, 300), start)
    random = torch.Generator().manual_seed(9)
    ddim(lambda x, t: clean, x, times, SCHEDULE, 1.0, random, observe=lambda x, _: seen.append(x))
    for x, t in zip(seen[:-1], times[1:], strict=True):
        assert float(x.var()) == pytest.approx(float(1 - SCHEDULE[int(t)]), rel=0.02)


def test_share_of_fresh_noise_is_that_of_the_posterior() -> None:
    """eta 1: variance (1 - a') / (1 - a) (1 - a / a') of q(x_t' | x_t, x_0) (Ho et al. 2020, eq. 7)."""
    clean, noise = torch.zeros(1, 1, 300, 300, dtype=torch.float64), images(1, 1, 300, 300)
    times = torch.tensor([400, 300])
    seen: list[list[Tensor]] = [[], []]
    for eta in (0, 1):
        random = torch.Generator().manual_seed(3)
        x = noised(clean, noise, times[:1])
        ddim(lambda x, t: clean, x, times, SCHEDULE, eta, random, observe=lambda x, _, k=eta: seen[k].append(x))
    now, then = (float(SCHEDULE[t]) for t in times)
    expected = (1 - then) / (1 - now) * (1 - now / then)
    kept = seen[1][0] - seen[0][0] * ((1 - then - expected) / (1 - then)) ** 0.5
    assert float(kept.var()) == pytest.approx(expected, rel=0.02)
    assert abs(float((kept * noise).mean())) < 0.01, "fresh noise does not depend on the old"


def test_each_image_starts_at_its_own_time() -> None:
    x, start = images(4, 3, 6, 6), torch.tensor([-1, 5, 57, 800])
    denoiser, times = Denoiser(Affine(), scheduler()), spaced_times(start, 8)
    with torch.no_grad():
        together = ddim(denoiser, x, times, SCHEDULE)
        alone = [ddim(denoiser, x[k : k + 1], spaced_times(start[k : k + 1], 8), SCHEDULE) for k in range(4)]
    torch.testing.assert_close(together, torch.cat(alone))
    assert torch.equal(together[0], x[0]), "-1 is clean already"


def test_times_fall_from_the_start_and_end_one_stride_above_the_clean_image() -> None:
    times = spaced_times(torch.tensor([-1, 0, 3, 99]), 4)
    assert times.T.tolist() == [[-1] * 4, [0, 0, -1, -1], [3, 2, 1, 0], [99, 74, 49, 24]]


def test_repeated_times_change_nothing() -> None:
    x, denoiser = images(2, 3, 4, 4), Denoiser(Affine(), scheduler())
    once, often = torch.tensor([57, 20, 3]), torch.tensor([57, 57, 20, 3, 3, 3])
    with torch.no_grad():
        torch.testing.assert_close(ddim(denoiser, x, often, SCHEDULE), ddim(denoiser, x, once, SCHEDULE))


def test_more_steps_than_levels() -> None:
    start = torch.tensor([4])
    with torch.no_grad():
        found = ddim(Denoiser(Affine(), scheduler()), images(1, 3, 4, 4), spaced_times(start, 50), SCHEDULE)
        every = ddim(Denoiser(Affine(), scheduler()), images(1, 3, 4, 4), torch.arange(4, -1, -1), SCHEDULE)
    torch.testing.assert_close(found, every)


def test_measured_data_are_put_back_into_every_estimate() -> None:
    measured, known = images(1, 3, 6, 6, seed=2), torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    known[..., :3] = 1
    seen: list[Tensor] = []
    with torch.no_grad():
        found = ddim(
            Denoiser(Affine(), scheduler()),
            images(1, 3, 6, 6),
            spaced_times(torch.tensor([999]), 5),
            SCHEDULE,
            constrain=lambda estimate: torch.where(known > 0, measured, estimate),
            observe=lambda _, estimate: seen.append(estimate),
        )
    for estimate in (*seen, found):
        assert torch.equal(estimate[..., :3], measured[..., :3])
    assert not torch.equal(found[..., 3:], measured[..., 3:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    denoiser = Denoiser(Affine(), scheduler()).to(dtype)
    x = images(2, 3, 4, 4, dtype=torch.float32).to(dtype)
    with torch.no_grad():
        found = ddim(denoiser, x, spaced_times(torch.tensor([57, 3]), 3), SCHEDULE, eta=0.5)
    assert found.dtype == dtype
    assert torch.isfinite(found).all()


def test_the_seed_decides_the_noise() -> None:
    def sample(seed: int) -> Tensor:
        random = torch.Generator().manual_seed(seed)
        times = spaced_times(torch.tensor([500]), 4)
        with torch.no_grad():
            return ddim(Denoiser(Affine(), scheduler()), images(1, 3, 4, 4), times, SCHEDULE, 1.0, random)

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        spaced_times(torch.tensor([10]), 0)


def test_level_broadcasts_over_any_rank() -> None:
    assert level(SCHEDULE, torch.tensor([0, 1]), torch.zeros(2, 3, 4, 5, 6)).shape == (2, 1, 1, 1, 1)
