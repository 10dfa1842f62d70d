"""Adversarial training of restoration: clean slices are what is real, and checkpoints load without running code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import AdversarialTrainer
from monai.networks.nets import MultiScalePatchDiscriminator
from torch import Tensor, nn

from monai_sasm.training.adversarial import GeneratorLoss, JudgeInferer, JudgeLoss, LogitMaps, RestorationRules
from monai_sasm.training.checkpoints import Checkpoints, latest_checkpoint
from monai_sasm.training.handlers import Attach


class Brighten(nn.Module):
    """Adds one learnt number."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.value


def judge() -> nn.Module:
    torch.manual_seed(0)
    return MultiScalePatchDiscriminator(
        num_d=2, num_layers_d=1, spatial_dims=2, channels=4, in_channels=1, norm="INSTANCE", minimum_size_im=32
    )


def trainer(generator: nn.Module, judge: nn.Module, folder: Path, resume: bool = False, epochs: int = 2) -> Engine:
    generator_optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)
    judge_optimizer = torch.optim.SGD(judge.parameters(), lr=0.01)
    objects = {"network": generator, "judge": judge, "optimizer": generator_optimizer}
    batch = {"image": torch.zeros(2, 1, 32, 32), "label": torch.ones(2, 1, 32, 32)}
    return AdversarialTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=[batch] * 3,
        g_network=generator,
        g_optimizer=generator_optimizer,
        g_loss_function=GeneratorLoss(0.01),
        recon_loss_function=nn.L1Loss(),
        d_network=judge,
        d_optimizer=judge_optimizer,
        d_loss_function=JudgeLoss(),
        d_inferer=JudgeInferer(),
        train_handlers=[Attach(RestorationRules()), Checkpoints(folder, objects, interval=1, resume=resume)],
        decollate=False,
    )


def test_the_judge_compares_restored_with_clean_not_with_degraded(tmp_path: Path) -> None:
    engine = trainer(Brighten(), judge(), tmp_path)
    seen: list[Tensor] = []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["reals"]))
    engine.run()
    assert all(bool((reals == 1).all()) for reals in seen)
    assert len(seen) == 6


def test_it_learns_both_and_reports_the_sum_of_losses(tmp_path: Path) -> None:
    generator, discriminator = Brighten(), judge()
    before = [weight.clone() for weight in discriminator.parameters()]
    engine = trainer(generator, discriminator, tmp_path)
    engine.run()
    # L1 towards ones has gradient -1, clipped to norm 1: six steps of 0.1, give or take the judge's hundredth
    assert generator.value.item() == pytest.approx(0.6, abs=0.02)
    assert any(not torch.equal(old, new) for old, new in zip(before, discriminator.parameters(), strict=True))
    output = engine.state.output
    total = output["reconstruction_loss"] + output["generator_loss"]
    torch.testing.assert_close(output["loss"], total.detach())


def test_a_run_goes_on_from_a_checkpoint_of_plain_tensors(tmp_path: Path) -> None:
    trainer(Brighten(), judge(), tmp_path, epochs=1).run()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    torch.load(newest, weights_only=True)  # no modules inside
    generator = Brighten()
    engine = trainer(generator, judge(), tmp_path, resume=True, epochs=3)
    assert engine.state.epoch == 1
    assert generator.value.item() == pytest.approx(0.3, abs=0.01)
    engine.run()
    assert engine.state.epoch == 3
    assert generator.value.item() == pytest.approx(0.9, abs=0.03)


def test_losses_are_least_squares() -> None:
    real, fake = LogitMaps([torch.full((1, 1, 2, 2), 0.5)]), LogitMaps([torch.full((1, 1, 2, 2), 0.25)])
    assert GeneratorLoss(2.0)(fake).item() == pytest.approx(2 * 0.75**2)
    assert JudgeLoss()(real, fake).item() == pytest.approx((0.5**2 + 0.25**2) / 2)


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight must not be negative"):
        GeneratorLoss(-1.0)
