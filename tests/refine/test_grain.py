"""Grain: a share of the fine noise that was removed; no drops, no blotches, nothing where nothing was done."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.refine.flow import FlowRefiner
from monai_sasm.refine.grain import grain

ANCHOR = torch.full((2, 3, 64, 64), 0.5)
NOISE = 0.1 * torch.randn(ANCHOR.shape, generator=torch.Generator().manual_seed(0))
AMPLITUDE = 0.003


def fine(noise: torch.Tensor) -> torch.Tensor:
    grey = noise.mean(1, keepdim=True).expand_as(noise)
    return grey - lowpass(grey, 2.0)


@pytest.mark.parametrize("strength", [0.7, 1.0, 2.0])
def test_it_is_removed_noise_of_the_given_amplitude_without_low_frequencies(strength: float) -> None:
    given = grain(ANCHOR + strength * NOISE, ANCHOR, AMPLITUDE)
    assert given.std().item() == pytest.approx(AMPLITUDE, rel=0.03)
    ratio = given / (strength * fine(NOISE))
    inner = fine(NOISE).abs() < 0.14  # nearly three standard deviations: nothing is clipped
    assert torch.equal(given[:, 0], given[:, 2]), "grain has no colour"
    assert all(one[part].std().item() < 1e-4 for one, part in zip(ratio, inner, strict=True))
    assert lowpass(given, 8.0).abs().max() < 1e-3


def test_where_little_was_removed_a_tenth_comes_back() -> None:
    noise = 0.05 * NOISE
    given = grain(ANCHOR + noise, ANCHOR, AMPLITUDE)
    assert given.std().item() == pytest.approx(0.1 * fine(noise).std().item(), rel=0.02)


def test_a_drop_that_was_removed_does_not_come_back() -> None:
    drop = torch.zeros_like(ANCHOR)
    drop[..., 20:40, 20:40] = 0.4
    assert not grain(ANCHOR + drop, ANCHOR, AMPLITUDE).any(), "most of the photo was left alone"
    with_noise = grain(ANCHOR + NOISE + drop, ANCHOR, AMPLITUDE)
    assert with_noise.abs().max() <= 3.01 * AMPLITUDE, "no more than three standard deviations"


def test_each_image_has_its_own_limit() -> None:
    noise = NOISE * torch.tensor([1.0, 0.1]).view(2, 1, 1, 1)
    both = grain(ANCHOR + noise, ANCHOR, AMPLITUDE)
    torch.testing.assert_close(both[1:], grain(ANCHOR[1:] + noise[1:], ANCHOR[1:], AMPLITUDE))


def test_a_refiner_adds_it_whatever_the_trust() -> None:
    class Still(torch.nn.Module):
        """Draws nothing."""

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(x[:, :3])

    refiner = FlowRefiner(Still(), grain=AMPLITUDE)
    source = ANCHOR + NOISE
    done = refiner.refine(ANCHOR, source)
    torch.testing.assert_close(done.change(ANCHOR), grain(source, ANCHOR, AMPLITUDE), atol=1e-6, rtol=1e-4)
    assert refiner.refine(ANCHOR).grain is None
    assert FlowRefiner(Still()).refine(ANCHOR, source).grain is None


def test_a_negative_amplitude_is_refused() -> None:
    with pytest.raises(ValueError, match="amplitude must not be negative, got -1"):
        grain(ANCHOR, ANCHOR, -1)
    with pytest.raises(ValueError, match="pin and grain at least 0"):
        FlowRefiner(torch.nn.Identity(), grain=-0.1)
