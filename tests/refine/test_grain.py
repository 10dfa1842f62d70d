"""Grain: a share of the fine noise that was removed; no drops, no blotches, nothing where nothing was done."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.refine.flow import FlowRefiner
from monai_sasm.refine.grain import grain

ANCHOR = torch.full((2, 3, 64, 64), 0.5)
NOISE = 0.1 * torch.randn(ANCHOR.shape, generator=torch.Generator().manual_seed(0))


def test_it_is_a_share_of_the_noise_without_its_low_frequencies() -> None:
    given = grain(ANCHOR + NOISE, ANCHOR, 0.05)
    grey = NOISE.mean(1, keepdim=True).expand_as(NOISE)
    fine = grey - lowpass(grey, 2.0)
    kept = fine.abs() < 0.14  # nearly three standard deviations
    torch.testing.assert_close(given[kept], 0.05 * fine[kept], atol=1e-6, rtol=1e-4)
    assert given.std().item() == pytest.approx(0.05 * fine.std().item(), rel=0.02)
    assert torch.equal(given[:, 0], given[:, 2]), "grain has no colour"
    assert lowpass(given, 8.0).abs().max() < 1e-3


def test_a_drop_that_was_removed_does_not_come_back() -> None:
    drop = torch.zeros_like(ANCHOR)
    drop[..., 20:40, 20:40] = 0.4
    assert not grain(ANCHOR + drop, ANCHOR, 0.05).any(), "most of the photo was left alone"
    with_noise = grain(ANCHOR + NOISE + drop, ANCHOR, 0.05)
    assert with_noise.abs().max() <= 0.05 * 3.3 * 0.1, "no more than three standard deviations of the noise"


def test_each_image_has_its_own_limit() -> None:
    noise = NOISE * torch.tensor([1.0, 0.1]).view(2, 1, 1, 1)
    both = grain(ANCHOR + noise, ANCHOR, 0.1)
    torch.testing.assert_close(both[1:], grain(ANCHOR[1:] + noise[1:], ANCHOR[1:], 0.1))


def test_a_refiner_adds_it_whatever_the_trust() -> None:
    class Still(torch.nn.Module):
        """Draws nothing."""

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x[:, :3])

    refiner = FlowRefiner(Still(), grain=0.05)
    source = ANCHOR + NOISE
    done = refiner.refine(ANCHOR, source)
    torch.testing.assert_close(done.change(ANCHOR), grain(source, ANCHOR, 0.05), atol=1e-6, rtol=1e-4)
    assert refiner.refine(ANCHOR).grain is None
    assert FlowRefiner(Still()).refine(ANCHOR, source).grain is None


def test_wrong_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"share must lie in \[0, 1\], got 2"):
        grain(ANCHOR, ANCHOR, 2)
    with pytest.raises(ValueError, match=r"grain in \[0, 1\]"):
        FlowRefiner(torch.nn.Identity(), grain=-0.1)
