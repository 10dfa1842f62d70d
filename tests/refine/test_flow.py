"""The flow refiner keeps the contract: anchored, repeatable, of any size, and modest where its ensemble disagrees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.experts.unet import ResidualUNet
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.refine.flow import FlowEstimate, FlowRefiner, trust_map
from monai_sasm.refine.network import TimeMapped
from monai_sasm.training.checkpoints import starting_from

ANCHOR = torch.rand(2, 3, 33, 46, generator=torch.Generator().manual_seed(1))


class Texture(nn.Module):
    """Predicts a fixed fine texture (checked), a shift of brightness, and a share of the source noise it is shown."""

    def __init__(self, texture: float = 0.2, shift: float = 0.0, noise: float = 0.0) -> None:
        super().__init__()
        self.texture, self.shift, self.noise = texture, shift, noise
        self.calls: list[tuple[int, list[float]]] = []

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, class_labels: Any = None) -> Tensor:
        self.calls.append((len(x), timesteps.tolist()))
        rows, columns = (torch.arange(side) for side in x.shape[-2:])
        checked = 1.0 - 2 * ((rows[:, None] + columns) % 2)
        return self.texture * checked + self.shift + self.noise * x[:, :3]


class Scaled(nn.Module):
    """One convolution called like a diffusion U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, class_labels: Any = None) -> Tensor:
        return self.convolution(x) * (timesteps / 1000).view(-1, 1, 1, 1)


def refiner(network: nn.Module, **settings: Any) -> FlowRefiner:
    return FlowRefiner(network, **settings).eval().requires_grad_(False)


def test_zero_weights_are_the_identity() -> None:
    assert torch.equal(refiner(Scaled(), zero_init=True, steps=3)(ANCHOR), ANCHOR)
    assert not torch.equal(refiner(Scaled())(ANCHOR), ANCHOR)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 4), (40, 33)])
def test_any_size(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    refined = refiner(Scaled(), steps=2).refine(image)
    assert refined.image.shape == image.shape
    assert refined.trust.shape == (1, 1, *size)
    assert torch.isfinite(refined.image).all()


def test_same_anchor_same_result_whatever_the_global_seed() -> None:
    network = Scaled()
    torch.manual_seed(1)
    first = refiner(network, steps=2)(ANCHOR)
    torch.manual_seed(2)
    assert torch.equal(first, refiner(network, steps=2)(ANCHOR))
    assert not torch.equal(first, refiner(network, steps=2, seed=1)(ANCHOR))


def test_texture_is_drawn_and_brightness_is_not_moved() -> None:
    change = refiner(Texture(texture=0.2, shift=0.4), pin=4.0)(ANCHOR) - ANCHOR
    assert float(change.std()) == pytest.approx(0.1, rel=0.05)  # 0.2 of [-1, 1]
    assert float(lowpass(change, 4.0).abs().max()) < 0.015
    free = refiner(Texture(texture=0.2, shift=0.4), pin=0)(ANCHOR) - ANCHOR
    assert float(free.mean()) == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_members_run_as_one_batch_at_falling_times(steps: int) -> None:
    network = Texture()
    refiner(network, steps=steps, members=3)(ANCHOR)
    assert [size for size, _ in network.calls] == [6] * steps
    assert [times[0] for _, times in network.calls] == [1000 * (1 - k / steps) for k in range(steps)]


def test_network_is_shown_noise_and_anchor() -> None:
    seen: list[Tensor] = []

    class Spy(Texture):
        def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, class_labels: Any = None) -> Tensor:
            seen.append(x)
            return super().forward(x, timesteps)

    refiner(Spy(), noise=0.02)(ANCHOR)
    assert float(seen[0][:, :3].std()) == pytest.approx(0.04, rel=0.05)
    torch.testing.assert_close(seen[0][:, 3:], (2 * ANCHOR - 1).repeat(2, 1, 1, 1))


def test_trust_is_full_where_members_agree_and_low_where_they_do_not() -> None:
    agreed = refiner(Texture(texture=0.2)).refine(ANCHOR)
    assert float(agreed.trust.min()) > 0.999
    drawn = refiner(Texture(texture=0.0, noise=1.0), members=4, pin=0).refine(ANCHOR)
    assert float(drawn.trust.mean()) < 0.15


def test_trust_is_wieners_factor() -> None:
    """A change of 0.3 with noise of 0.1 between members: 0.09 / (0.09 + 0.01)."""
    noise = 0.1 * torch.randn(8, 1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    trust = trust_map(0.3 + noise, window=4.0)
    assert float(trust.mean()) == pytest.approx(0.9, abs=0.01)
    assert trust.shape == (1, 1, 128, 128)
    assert torch.equal(trust_map(noise[:1], 2.0), torch.ones(1, 1, 128, 128))


def test_forward_blends_by_trust() -> None:
    model = refiner(Texture(texture=0.1, noise=0.5), members=3)
    refined = model.refine(ANCHOR)
    torch.testing.assert_close(model(ANCHOR), ANCHOR + refined.trust * (refined.image - ANCHOR))


def test_estimate_adds_to_the_anchor() -> None:
    anchor = 2 * ANCHOR - 1
    estimate = FlowEstimate(Texture(texture=0.0, shift=0.25))
    torch.testing.assert_close(estimate(torch.randn_like(anchor), torch.full((2,), 500.0), anchor), anchor + 0.25)


def test_time_takes_the_place_of_the_noise_map() -> None:
    class Mapped(nn.Module):
        """Adds ten times the map to every channel."""

        def forward(self, image: Tensor, sigma: Tensor) -> Tensor:
            assert sigma.shape == (2, 1, 33, 46)
            return image + 10 * sigma

    correction = TimeMapped(Mapped())(torch.cat([ANCHOR, ANCHOR], 1), timesteps=torch.tensor([1000.0, 250.0]))
    torch.testing.assert_close(correction, torch.tensor([10.0, 2.5]).view(2, 1, 1, 1).expand(2, 3, 33, 46))


@pytest.mark.parametrize("settings", [{"steps": 0}, {"members": 0}, {"pin": -1.0}, {"noise": 0.0}, {"window": 0.0}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least"):
        FlowRefiner(Scaled(), **settings)


class Returning(nn.Module):
    """Predicts a tenth of the last three channels that it is shown."""

    def forward(self, x: Tensor, timesteps: Tensor, context: Any = None, class_labels: Any = None) -> Tensor:
        return x[:, -3:] / 10


def test_what_the_experts_removed_is_shown_where_it_is_known() -> None:
    source = ANCHOR + 0.1 * torch.randn(ANCHOR.shape, generator=torch.Generator().manual_seed(2))
    sees = refiner(Returning(), removed=True, pin=0.0, members=1)
    torch.testing.assert_close(sees.refine(ANCHOR, source).image, ANCHOR + (source - ANCHOR) / 10)
    torch.testing.assert_close(sees(ANCHOR, source), ANCHOR + (source - ANCHOR) / 10)
    torch.testing.assert_close(sees(ANCHOR), ANCHOR)
    blind = refiner(Returning(), pin=0.0, members=1)
    assert torch.equal(blind.refine(ANCHOR, source).image, blind.refine(ANCHOR).image)


def test_a_network_begins_without_what_it_will_see(tmp_path: Path) -> None:
    def build(**more: int) -> TimeMapped:
        return TimeMapped(ResidualUNet(6, [8, 16], noise_estimator=NoiseEstimator(), **more))  # type: ignore[arg-type]

    torch.save(build().state_dict(), tmp_path / "without.pt")
    without, wide = (starting_from(build(**more), tmp_path / "without.pt", "cpu") for more in ({}, {"conditions": 3}))
    x, times = torch.rand(2, 9, 20, 24), torch.tensor([1000.0, 300.0])
    with torch.inference_mode():
        torch.testing.assert_close(wide(x, times), without(x[:, :6], times))
    with pytest.raises(ValueError, match="neighbours or conditions, not both"):
        build(conditions=3, neighbours=1)
