"""Generative restoration: measured data stay, one step is deterministic, spread shows what is open, windows join."""

from __future__ import annotations

import pytest
import torch
from monai.networks.schedulers import RFlowScheduler
from skimage import data
from torch import Tensor, nn

from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr, to_kspace
from monai_sasm.diffusion.process import Flow
from monai_sasm.experts.consistency import MeasuredKspace, PinnedHu, sampled
from monai_sasm.experts.dit import DiT
from monai_sasm.experts.generative import GenerativeRestorer, Prediction
from monai_sasm.experts.windows import Windowed
from monai_sasm.training.batches import PreparePaired
from monai_sasm.training.degraded import degraded_pairs
from monai_sasm.training.generative import GenerativeLoss, PrepareGenerative


class Constant(nn.Module):
    """Predicts ``value`` plus ``seen`` times what it is shown of z."""

    def __init__(self, value: float = 0.0, seen: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))
        self.seen = seen

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        return self.value + self.seen * x[:, :1]


def restorer(network: nn.Module, **options: object) -> GenerativeRestorer:
    return GenerativeRestorer(network, Flow(RFlowScheduler(1000)), **options)  # type: ignore[arg-type]


def mr_slice() -> Tensor:
    """Something with detail at all scales, of odd and of even extent, in working scale."""
    return torch.from_numpy(data.camera()[100:196, 180:261] / 255).float()[None, None]


IMAGE = torch.rand(2, 1, 24, 40, generator=torch.Generator().manual_seed(0))


def test_one_step_adds_the_prediction_and_shows_no_noise() -> None:
    torch.testing.assert_close(restorer(Constant(0.5, seen=3.0), scale=0.1)(IMAGE), IMAGE + 0.05)


def test_more_steps_have_a_spread_and_one_has_none() -> None:
    model = restorer(Constant(0.0, seen=1.0), scale=0.1)
    spread = model.uncertainty(IMAGE)
    assert spread.shape == (2, 1, 24, 40)
    assert float(spread.mean()) > 1e-3
    assert torch.equal(model(IMAGE), model.restore(IMAGE, seed=5))
    with pytest.raises(ValueError, match="at least 2"):
        model.uncertainty(IMAGE, steps=1)


@pytest.mark.parametrize("factor", [2.0, 4.0])
def test_the_sampled_kspace_is_found_and_kept(factor: float) -> None:
    clean = mr_slice()
    low = LowQualityMr(KspaceTruncation(factor=(factor, factor)), KspaceNoise(sigma=(0.005, 0.005)))
    params = low.draw((1, 1, *clean.shape[-2:]), torch.Generator().manual_seed(0))
    degraded = low.apply(clean, params)
    mask = sampled(degraded)
    assert torch.equal(mask, low.truncation.window(params, clean.shape[-2:]))
    drawn = restorer(Constant(0.3, seen=1.0), guard=MeasuredKspace(), steps=3)(degraded)
    torch.testing.assert_close(to_kspace(drawn) * mask, to_kspace(degraded) * mask, atol=1e-3, rtol=1e-3)
    assert float((drawn - degraded).abs().max()) > 0.01


def test_a_fully_sampled_slice_is_left_to_the_network() -> None:
    image = mr_slice()
    assert float(sampled(image).sum()) == 0
    estimate = torch.zeros_like(image)
    assert torch.equal(MeasuredKspace()(estimate, image), estimate)


def test_coarse_hounsfield_units_stay() -> None:
    drifted = IMAGE + 0.2 + 0.1 * torch.randn(IMAGE.shape, generator=torch.Generator().manual_seed(1))
    assert abs(float((PinnedHu(4.0)(drifted, IMAGE) - IMAGE).mean())) < 0.01


def test_windows_join_to_what_a_local_network_sees_at_once() -> None:
    local = nn.Conv2d(2, 1, 1)

    class Local(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor, context: object = None, class_labels: object = None) -> Tensor:
            mapped: Tensor = local(x)
            return mapped

    x = torch.rand(2, 2, 50, 70)
    windows = Windowed(Local(), size=32).eval()
    torch.testing.assert_close(windows(x, torch.full((2,), 7.0)), local(x), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="one time"):
        windows(x, torch.tensor([1.0, 2.0]))


def test_training_lowers_the_loss_and_ends_as_the_identity_of_zeros() -> None:
    torch.manual_seed(0)
    model = restorer(DiT(3, 1, preset="T", depth=1, width=32, heads=2, patch=4), scale=0.1, zero_init=True)
    torch.testing.assert_close(model.eval()(IMAGE), IMAGE)
    low = LowQualityMr(KspaceTruncation(factor=(2.0, 2.0)), KspaceNoise(sigma=(0.0, 0.0)))
    pairs = degraded_pairs([mr_slice()[0].numpy()], [low], min_size=64)
    clean, noisy = (torch.from_numpy(part)[None] for part in pairs[0])
    prepare = PrepareGenerative(model, PreparePaired(), last=1.0)
    loss, network = GenerativeLoss(), Prediction(model)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    found = []
    for _ in range(30):
        z, target, arguments, _ = prepare({"clean": clean, "noisy": noisy})
        value = loss(network(z, *arguments), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found.append(float(value))
    assert found[-1] < 0.98 * found[0]


def test_target_holds_prediction_and_image() -> None:
    model = restorer(Constant(0.0), scale=0.1)
    prepare = PrepareGenerative(model, PreparePaired(), last=0.0)
    z, target, (t, image), _ = prepare({"clean": IMAGE, "noisy": IMAGE + 0.05})
    torch.testing.assert_close(target[:, 1:], IMAGE)
    meant = image + 0.1 * model.process.estimate(z, target[:, :1], t)
    torch.testing.assert_close(meant, IMAGE, atol=1e-4, rtol=1e-4)
    assert Prediction(model)(z, t, image).shape == (2, 2, 24, 40)


def test_no_slice_that_is_large_enough_is_an_error() -> None:
    with pytest.raises(ValueError, match="no slice"):
        degraded_pairs([IMAGE[0].numpy()], [], min_size=64)
