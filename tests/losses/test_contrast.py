"""The contrast-gain loss against its formula, and what it thinks of restorers that erase."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.losses.contrast import ContrastGainLoss


def test_the_loss_is_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    y, with_lesions, x = (torch.rand(3, 1, 8, 8, generator=generator) for _ in range(3))
    s = 0.1 * torch.rand(3, 1, 8, 8, generator=generator)
    expected = 0.5 * ((y - x).abs().mean() + (with_lesions - x - s).abs().mean())
    expected = expected + 3.0 * (with_lesions - y - s).abs().mean()
    loss = ContrastGainLoss(gain=3.0)(torch.cat([y, with_lesions]), torch.cat([x, x + s]))
    torch.testing.assert_close(loss, expected)
    squared = 0.5 * ((y - x).square().mean() + (with_lesions - x - s).square().mean())
    both = ContrastGainLoss(gain=3.0, l2=2.0)(torch.cat([y, with_lesions]), torch.cat([x, x + s]))
    torch.testing.assert_close(both, expected + 2.0 * squared)


def test_an_erased_lesion_costs_its_contrast() -> None:
    x, s = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.25)
    target = torch.cat([x, x + s])
    assert float(ContrastGainLoss(4.0)(target, target)) == 0
    erased = float(ContrastGainLoss(4.0)(torch.zeros(4, 1, 4, 4), target))
    assert erased == pytest.approx(0.5 * 0.25 + 4 * 0.25)
    shifted = float(ContrastGainLoss(4.0)(target + 0.1, target))
    assert shifted == pytest.approx(0.1), "an error that both share costs no contrast"


def test_what_is_not_known_costs_nothing() -> None:
    x, s = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.25)
    target = torch.cat([x, x + s])
    target[..., :2] = torch.nan
    prediction = torch.zeros(4, 1, 4, 4, requires_grad=True)
    loss = ContrastGainLoss(4.0, l2=1.0)(prediction, target)
    assert float(loss.detach()) == pytest.approx(0.5 * (0.5 * 0.25 + 0.5 * 0.25**2 + 4 * 0.25))
    loss.backward()
    assert prediction.grad is not None
    assert torch.equal(prediction.grad[..., :2], torch.zeros(4, 1, 4, 2))
    assert bool((prediction.grad[2:, ..., 2:] < 0).all())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="weights must not be negative, got gain=-1"):
        ContrastGainLoss(-1)
    with pytest.raises(ValueError, match=r"without and with lesions, \(2 B, C, H, W\), got \(3, 1, 4, 4\)"):
        ContrastGainLoss()(torch.zeros(3, 1, 4, 4), torch.zeros(3, 1, 4, 4))
