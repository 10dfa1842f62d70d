"""Networks of others become experts: they add a correction at any size, and measured data stay if a guard is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from monai.networks.nets.restormer import Restormer
from skimage import data
from torch import Tensor, nn

from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr, to_kspace
from monai_sasm.experts.consistency import MeasuredKspace, sampled
from monai_sasm.experts.esrgan import RRDBNet
from monai_sasm.experts.residual import Residual
from monai_sasm.experts.unet import ResidualUNet

EXPERTS: dict[str, Callable[..., nn.Module]] = {  # untrained: each draws what was never measured
    "unet": partial(ResidualUNet, channels=(8, 16)),
    "esrgan": partial(RRDBNet, features=8, blocks=1, growth=4),
    "residual": lambda guard: Residual(nn.Conv2d(1, 1, 3, padding=1), guard=guard),
}
SLICE = torch.from_numpy(data.camera()[100:196, 180:260] / 255).float()[None, None]


def drawing(kind: str, guard: MeasuredKspace | None) -> nn.Module:
    """An expert with the same random weights each time."""
    torch.manual_seed(0)
    return EXPERTS[kind](guard=guard).requires_grad_(False)


class Wants(nn.Module):
    """Returns ones, and insists on sides that are multiples of 8."""

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[2] % 8 == image.shape[3] % 8 == 0
        return torch.ones_like(image)


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (1, 1)])
def test_a_correction_is_added_at_any_size(size: tuple[int, int]) -> None:
    image = torch.rand(2, 1, *size)
    torch.testing.assert_close(Residual(Wants(), multiple=8)(image), image + 1)


def test_restormer_starts_as_the_identity_and_learns() -> None:
    network = Restormer(2, 1, 1, dim=8, num_blocks=(1, 1), heads=(1, 2), num_refinement_blocks=1)
    expert = Residual(network, multiple=2, zero_init=True)
    image = torch.rand(1, 1, 7, 10)
    restored = expert(image)
    assert torch.equal(restored, image)
    restored.sum().backward()
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_a_multiple_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple must be at least 1"):
        Residual(nn.Identity(), multiple=0)


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_guard_keeps_what_was_measured_and_nothing_else(kind: str) -> None:
    poor = LowQualityMr(KspaceTruncation(factor=(2.0, 2.0)), KspaceNoise(sigma=(0.01, 0.01)))
    image = poor.apply(SLICE, poor.draw(tuple(SLICE.shape), torch.Generator().manual_seed(0)))
    mask = sampled(image).bool().expand_as(image)
    assert mask.any()
    assert not mask.all()
    free, kept = (to_kspace(drawing(kind, guard)(image)) for guard in (None, MeasuredKspace()))
    torch.testing.assert_close(kept[mask], to_kspace(image)[mask], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept[~mask], free[~mask], atol=1e-4, rtol=1e-4)
    assert (free[mask] - to_kspace(image)[mask]).abs().max() > 0.1
