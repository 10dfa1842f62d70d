"""Rectified flow against MONAI's scheduler, and against flows whose paths are known."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import RFlowScheduler
from torch import Tensor

from monai_sasm.diffusion.flow import euler, even_shares, interpolate

SHAPE = (3, 2, 5, 7)
GENERATOR = torch.Generator().manual_seed(0)
CLEAN, SOURCE = (torch.randn(SHAPE, generator=GENERATOR) for _ in range(2))


def test_points_on_the_line_are_monais() -> None:
    times = torch.tensor([0.0, 250.0, 1000.0])
    expected = RFlowScheduler().add_noise(original_samples=CLEAN, noise=SOURCE, timesteps=times)
    ours = interpolate(CLEAN, SOURCE, times / 1000)
    torch.testing.assert_close(ours, expected)
    assert torch.equal(ours[0], CLEAN[0])
    assert torch.equal(ours[2], SOURCE[2])


@pytest.mark.parametrize("steps", [1, 2, 4, 10])
def test_euler_walks_as_monais_scheduler(steps: int) -> None:
    def predicted(x: Tensor, s: Tensor) -> Tensor:  # curved: the number of steps matters
        return torch.sin(3 * x) - s.view(-1, 1, 1, 1) * x

    scheduler = RFlowScheduler(use_discrete_timesteps=False)
    scheduler.set_timesteps(steps)
    expected = SOURCE
    for share in even_shares(steps):
        t = 1000 * float(share)
        expected, _ = scheduler.step(predicted(expected, share.expand(3)), t, expected)
    ours = euler(lambda x, s: x + s.view(-1, 1, 1, 1) * predicted(x, s), SOURCE, even_shares(steps))
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_steps_follow_the_line_of_a_perfect_estimate() -> None:
    seen: list[Tensor] = []
    result = euler(lambda x, s: CLEAN, SOURCE, even_shares(4), observe=lambda x, clean: seen.append(x))
    assert torch.equal(result, CLEAN)
    for x, share in zip(seen, (0.75, 0.5, 0.25), strict=False):
        torch.testing.assert_close(x, interpolate(CLEAN, SOURCE, torch.full((3,), share)))


def test_more_steps_draw_nearer_to_one_of_two_clean_images() -> None:
    """From N(0, 1) to two equally likely images, -1 and 1: one step gives their mean, 0, many steps one of them."""

    def posterior_mean(x: Tensor, s: Tensor) -> Tensor:
        share = s.view(-1, 1, 1, 1)
        return torch.tanh((1 - share) * x / share**2)

    def distance(steps: int) -> float:
        return float((euler(posterior_mean, SOURCE, even_shares(steps)).abs() - 1).abs().mean())

    assert distance(1) == pytest.approx(1.0)
    assert distance(4) < 0.4
    assert distance(50) < 0.02


def test_every_estimate_is_constrained() -> None:
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[..., 0] = True
    result = euler(
        lambda x, s: 0.5 * x, SOURCE, even_shares(3), constrain=lambda clean: torch.where(known, CLEAN, clean)
    )
    assert torch.equal(result[known], CLEAN[known])
    assert not torch.equal(result[~known], CLEAN[~known])


def test_times_fall_to_one_stride_above_zero() -> None:
    assert even_shares(4).tolist() == [1.0, 0.75, 0.5, 0.25]
    assert even_shares(2, start=0.5).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(("steps", "start"), [(0, 1.0), (2, 0.0), (2, 1.5)])
def test_impossible_times_are_refused(steps: int, start: float) -> None:
    with pytest.raises(ValueError, match="at least 1 step"):
        even_shares(steps, start)


@pytest.mark.parametrize("shares", [[], [0.5, 0.5], [0.5, 1.0], [1.0, 0.0]])
def test_times_that_do_not_fall_are_refused(shares: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and fall"):
        euler(lambda x, s: x, SOURCE, torch.tensor(shares))
