"""What a flow refiner is trained on: points on the line between restored and clean photo."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import RFlowScheduler

from monai_sasm.training.flow import PrepareFlow

CLEAN = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
ANCHOR = (CLEAN + 0.1).clamp(0, 1)
BATCH = {"clean": CLEAN, "noisy": ANCHOR}


def test_input_lies_between_noisy_anchor_and_clean_photo() -> None:
    x, target, (times, anchor), keywords = PrepareFlow(RFlowScheduler(), noise=0.05)(BATCH)
    torch.testing.assert_close(target, 2 * CLEAN - 1)
    torch.testing.assert_close(anchor, 2 * ANCHOR - 1)
    share = (times / 1000).view(-1, 1, 1, 1)
    noise = (x - (1 - share) * target - share * anchor) / share
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)  # 0.05 of [0, 1] is 0.1 of [-1, 1]
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.01)
    assert keywords == {}


@pytest.mark.parametrize("first", [0.0, 0.5, 1.0])
def test_a_share_of_the_batch_starts_at_the_beginning(first: float) -> None:
    prepare = PrepareFlow(RFlowScheduler(), first=first)
    times = torch.cat([prepare(BATCH)[2][0] for _ in range(8)])
    assert float((times == 1000).float().mean()) == pytest.approx(first, abs=0.08)
    assert float(times.min()) > 0
    assert float(times.max()) <= 1000


def test_draws_depend_on_the_seed_alone() -> None:
    first, second, other = (PrepareFlow(RFlowScheduler(), seed=seed)(BATCH)[0] for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_first_is_a_share() -> None:
    with pytest.raises(ValueError, match="share of the batch"):
        PrepareFlow(RFlowScheduler(), first=1.5)
