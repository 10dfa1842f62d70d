"""Arc and line: exact for an oracle, blind at the end, unit variance, and the velocities of the papers."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, RFlowScheduler
from torch import Tensor

from monai_sasm.diffusion.process import Diffusion, Flow, Process

CLEAN, NOISE = torch.randn(2, 64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()


def processes() -> list[Process]:
    scheduler = DDIMScheduler(1000, schedule="cosine", prediction_type="v_prediction", clip_sample=False)
    return [Diffusion(scheduler), Flow(RFlowScheduler(1000))]


@pytest.mark.parametrize("process", processes(), ids=["arc", "line"])
def test_target_and_estimate_are_inverse(process: Process) -> None:
    t = process.draw(64, torch.Generator().manual_seed(1))
    assert float(t.min()) >= 0
    assert float(t.max()) <= process.last
    z = process.noised(CLEAN, NOISE, t)
    torch.testing.assert_close(process.estimate(z, process.target(CLEAN, NOISE, t), t), CLEAN, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("process", processes(), ids=["arc", "line"])
def test_the_last_time_is_noise_and_its_target_the_image(process: Process) -> None:
    t = torch.full((64,), process.last)
    torch.testing.assert_close(process.noised(CLEAN, NOISE, t), NOISE)
    target = process.target(CLEAN, NOISE, t)
    torch.testing.assert_close(target.abs(), CLEAN.abs())
    torch.testing.assert_close(process.estimate(NOISE, target, t), CLEAN)
    assert float(process.estimate(NOISE, torch.zeros_like(NOISE), t).abs().max()) == 0


@pytest.mark.parametrize("process", processes(), ids=["arc", "line"])
def test_targets_have_unit_variance_at_all_times(process: Process) -> None:
    for share in (0.05, 0.3, 0.5, 0.8, 1.0):
        t = torch.full((64,), float(int(share * process.last)))
        assert float(process.target(CLEAN, NOISE, t).std()) == pytest.approx(1, abs=0.05)


def test_the_line_has_the_velocity_of_flow_matching() -> None:
    flow = Flow(RFlowScheduler(1000))
    t = torch.full((64,), 300.0)
    z, s = flow.noised(CLEAN, NOISE, t), 0.3
    spread = (1 - s) ** 2 + s**2
    velocity = ((1 - 2 * s) * z + spread**0.5 * flow.target(CLEAN, NOISE, t)) / spread
    torch.testing.assert_close(velocity, CLEAN - NOISE, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("process", processes(), ids=["arc", "line"])
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_sampling_with_an_oracle_ends_at_the_image(process: Process, steps: int) -> None:
    seen: list[Tensor] = []

    def oracle(z: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return process.target(CLEAN, NOISE, t)

    torch.testing.assert_close(process.sample(oracle, NOISE, steps), CLEAN, atol=1e-3, rtol=1e-3)
    assert len(seen) == steps
    assert float(seen[0][0]) == process.last


@pytest.mark.parametrize("process", processes(), ids=["arc", "line"])
def test_constraints_act_on_every_estimate(process: Process) -> None:
    result = process.sample(lambda z, t: torch.zeros_like(z), NOISE, 4, lambda clean: torch.full_like(clean, 0.5))
    torch.testing.assert_close(result, torch.full_like(NOISE, 0.5))


def test_another_prediction_is_refused() -> None:
    with pytest.raises(ValueError, match="v_prediction"):
        Diffusion(DDIMScheduler(10))
