"""Batches for diffusion training: what the network is shown is what the schedule says."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler

from monai_sasm.training.diffusion import PrepareDenoising


def scheduler() -> DDIMScheduler:
    return DDIMScheduler(1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, clip_sample=False)


def batch(count: int = 4, size: int = 64) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(5))}


def test_input_is_the_clean_image_at_its_level() -> None:
    prepare = PrepareDenoising(scheduler(), times=(200, 600))
    noisy, clean, (times,), keywords = prepare(batch(), "cpu")
    torch.testing.assert_close(clean, 2 * batch()["image"] - 1)
    assert keywords == {}
    kept = scheduler().alphas_cumprod[times].view(-1, 1, 1, 1)
    noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
    assert noise.mean((1, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.04)
    assert noise.std((1, 2, 3)).tolist() == pytest.approx([1] * 4, rel=0.03)


def test_times_cover_their_range_evenly() -> None:
    times = PrepareDenoising(scheduler(), times=(10, 20)).get_timesteps(torch.zeros(20000, 1))
    assert times.dtype == torch.int64
    counts = torch.bincount(times, minlength=21)
    assert int(counts[:10].sum()) == 0
    assert counts[11:20].tolist() == pytest.approx([2000] * 9, rel=0.1)


def test_skew_prefers_little_noise() -> None:
    """Median of u**2 is 1/4."""
    times = PrepareDenoising(scheduler(), times=(0, 400), skew=2.0).get_timesteps(torch.zeros(20000, 1))
    assert float(times.float().median()) == pytest.approx(100, abs=5)


def test_the_seed_decides() -> None:
    first, again, other = (PrepareDenoising(scheduler(), seed=seed)(batch(), "cpu") for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[2][0], other[2][0])


def test_every_batch_has_its_own_noise() -> None:
    prepare = PrepareDenoising(scheduler(), times=(500, 500))
    assert not torch.equal(prepare(batch(), "cpu")[0], prepare(batch(), "cpu")[0])


@pytest.mark.parametrize("times", [(-1, 5), (7, 3), (0, 1000)])
def test_times_outside_the_schedule_are_refused(times: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="times must lie in 0 to 999 and rise"):
        PrepareDenoising(scheduler(), times=times)


def test_skew_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"skew must be positive, got 0\.0"):
        PrepareDenoising(scheduler(), skew=0.0)
