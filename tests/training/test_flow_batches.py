"""What a flow refiner is trained on: points on the line between restored and clean photo."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import RFlowScheduler

from monai_sasm.training.flow import FLOOR, FlowLoss, PrepareFlow, PrepareRefinement

CLEAN = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
ANCHOR = (CLEAN + 0.1).clamp(0, 1)
BATCH = {"clean": CLEAN, "noisy": ANCHOR}


def test_input_lies_between_noisy_anchor_and_clean_photo() -> None:
    x, target, (times, anchor), keywords = PrepareFlow(RFlowScheduler(), noise=0.05)(BATCH)
    target = target[:, :3]
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
    with pytest.raises(ValueError, match="shares of the batch"):
        PrepareFlow(RFlowScheduler(), first=1.5)


def test_error_counts_relative_to_the_anchors() -> None:
    """An estimate as wrong as its anchor costs 1, whether the experts left much or little; half as wrong a quarter."""
    left = torch.linspace(0.05, 0.5, 64).view(-1, 1, 1, 1)
    anchor = CLEAN + left
    _, target, *_ = PrepareFlow(RFlowScheduler())({"clean": CLEAN, "noisy": anchor})
    loss = FlowLoss(perceptual=0)
    expected = float((4 * left**2 / (4 * left**2 + FLOOR)).mean())
    assert float(loss(2 * anchor - 1, target)) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.98
    assert float(loss(2 * (CLEAN + left / 2) - 1, target)) == pytest.approx(expected / 4, rel=1e-3)
    assert float(loss(2 * CLEAN - 1, target)) == pytest.approx(0, abs=1e-6)


def test_feature_distance_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shown(torch.nn.Module):
        """Stands in for VGG19: two channels whose angle is the colour."""

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            return [torch.cat([image[:, :1], 1 - image[:, :1]], 1)]

    monkeypatch.setattr("monai_sasm.training.flow.Vgg19Features", Shown)
    black, white = -torch.ones(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    target = torch.cat([black, torch.zeros(2, 1, 8, 8)], 1)  # weight 0: the features alone count
    assert float(FlowLoss(perceptual=3.0)(white, target)) == pytest.approx(6.0)  # orthogonal unit vectors: 2
    assert float(FlowLoss(perceptual=3.0)(black, target)) == 0
    with pytest.raises(ValueError, match="not be negative"):
        FlowLoss(perceptual=-1.0)


@pytest.mark.parametrize(("blind", "expected"), [(0.0, 2 * CLEAN.flip(0) - 1), (1.0, 2 * ANCHOR - 1)])
def test_the_source_follows_the_anchor_unless_it_is_withheld(blind: float, expected: torch.Tensor) -> None:
    prepare = PrepareFlow(RFlowScheduler(), blind=blind)
    _, _, (_, anchor, source), _ = prepare({**BATCH, "source": CLEAN.flip(0)})
    torch.testing.assert_close(anchor, 2 * ANCHOR - 1)
    torch.testing.assert_close(source, expected)
    with pytest.raises(ValueError, match="blind are shares"):
        PrepareFlow(RFlowScheduler(), blind=2)


def test_validation_hands_over_the_source() -> None:
    image, clean, arguments, _ = PrepareRefinement()({**BATCH, "source": CLEAN + 1})
    assert torch.equal(image, ANCHOR)
    assert torch.equal(clean, CLEAN)
    assert torch.equal(arguments[0], CLEAN + 1)
    assert PrepareRefinement()(BATCH)[2] == ()
