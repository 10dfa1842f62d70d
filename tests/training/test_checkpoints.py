"""Resumed runs: the draws, schedules and settings they go on with, and checkpoints that they cannot go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from monai_sasm.datasets.crops import CropDataset
from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.recipes import training
from monai_sasm.training.batches import PrepareDegraded
from monai_sasm.training.budget import TimeBudget
from monai_sasm.training.checkpoints import latest_checkpoint

Schedule = Callable[[torch.optim.Optimizer, int], Any]
IMAGES = [np.random.default_rng(0).random((1, 32, 32), np.float32)]
LENGTH = 5  # batches of an epoch
SCHEDULES: dict[str, Schedule] = {
    "one cycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps + 1),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
    "constant": lambda optimizer, _: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "lambda": lambda optimizer, steps: lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps),
}


class Run:
    """A small training: what it draws and the learning rate of each step."""

    def __init__(
        self,
        folder: Path,
        epochs: int,
        schedule: Schedule | None = None,
        lr: float = 0.1,
        batch_size: int = 2,
        workers: int = 0,
        minutes: float | None = None,
        warmup: bool = False,
        channels: int = 1,
        **settings: Any,
    ) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.Dropout(0.2), nn.Conv2d(channels, 1, 1))
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr, momentum=0.9)
        warm: dict[str, Any] = {"momentum_warmup": 0.5, "warmup_iters": 8} if warmup else {}
        self.ema = EMAHandler(self.network, momentum=0.1, **warm)
        dataset = CropDataset(IMAGES, 8, length=2 * LENGTH)
        self.trainer: SupervisedTrainer = training.trainer(
            device="cpu",
            max_epochs=epochs,
            train_data_loader=DataLoader(dataset, batch_size, num_workers=workers),
            network=self.network,
            optimizer=self.optimizer,
            loss_function=nn.MSELoss(),
            inferer=SimpleInferer(),
            prepare_batch=PrepareDegraded(GaussianNoise((0.1, 0.2)), pass_sigma=False),
            output_dir=folder,
            lr_scheduler=schedule and schedule(self.optimizer, epochs * (2 * LENGTH // batch_size)),
            budget=TimeBudget(self.optimizer, minutes) if minutes else None,
            ema=self.ema,
            **settings,
        )
        self.rates: list[float] = []
        self.momenta: list[float] = []
        self.inputs: list[bytes] = []
        self.trainer.add_event_handler(Events.ITERATION_COMPLETED, self._note)

    def _note(self, engine: Engine) -> None:
        state: Any = engine.state
        self.inputs.append(state.output["image"].numpy().tobytes())
        self.momenta.append(state.ema_momentum)

    def go(self, stop: int | None = None) -> Run:
        """Train, stopping after the epoch ``stop``."""
        # before the optimizer's step and the schedule's, which follow each other
        self.trainer.add_event_handler(
            Events.ITERATION_STARTED, lambda: self.rates.append(self.optimizer.param_groups[0]["lr"])
        )
        if stop is not None:
            self.trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stop), lambda engine: engine.terminate())
        self.trainer.run()
        return self

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """Weights and their average."""
        averaged = {f"ema {name}": value for name, value in self.ema.ema_model.state_dict().items()}
        return {**self.network.state_dict(), **averaged}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_stopped_run_goes_on_as_if_it_had_not(schedule: str, workers: int, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", 3, SCHEDULES[schedule], workers=workers, warmup=True).go()
    first = Run(tmp_path / "parts", 3, SCHEDULES[schedule], workers=workers, warmup=True).go(stop=1)
    second = Run(tmp_path / "parts", 3, SCHEDULES[schedule], workers=workers, warmup=True, resume=True).go()
    assert first.inputs + second.inputs == whole.inputs
    assert len(set(whole.inputs)) == 3 * LENGTH, "no epoch draws what another drew"
    assert first.rates + second.rates == whole.rates
    assert first.momenta + second.momenta == whole.momenta
    assert len(set(whole.momenta)) == 8, "it warms up over eight steps"
    assert all(torch.equal(value, second.state[name]) for name, value in whole.state.items())
    assert second.trainer.state.iteration == 3 * LENGTH


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_more_epochs_take_the_rates_of_the_longer_schedule(schedule: str, tmp_path: Path) -> None:
    Run(tmp_path / "run", 2, SCHEDULES[schedule]).go()
    second = Run(tmp_path / "run", 4, SCHEDULES[schedule], resume=True).go()
    whole = Run(tmp_path / "whole", 4, SCHEDULES[schedule]).go()
    assert second.rates == whole.rates[2 * LENGTH :]


def test_settings_of_the_config_are_those_of_the_resumed_run(tmp_path: Path) -> None:
    Run(tmp_path, 1).go()
    second = Run(tmp_path, 3, lr=0.02, batch_size=5, resume=True).go()
    assert second.rates == [0.02] * 4, "two epochs of two batches"
    assert (second.trainer.state.epoch, second.trainer.state.iteration) == (3, 6)
    assert second.optimizer.state, "its momentum is kept"


def test_a_complete_run_trains_no_further(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = Run(tmp_path, 2).go().state
    for epochs in (2, 1):
        with caplog.at_level(logging.WARNING):
            again = Run(tmp_path, epochs, SCHEDULES["one cycle"], resume=True).go()
        assert "2 epochs are trained already" in caplog.text
        assert again.inputs == []
        assert (again.trainer.state.epoch, again.trainer.state.iteration) == (2, 2 * LENGTH)
        assert all(torch.equal(value, again.state[name]) for name, value in before.items())
    assert len(Run(tmp_path, 3, resume=True).go().inputs) == LENGTH


def test_a_budget_that_is_used_up_trains_no_further(tmp_path: Path) -> None:
    first = Run(tmp_path, 1000, minutes=1e-9).go()
    assert len(first.inputs) <= 1
    again = Run(tmp_path, 1000, minutes=1e-9, resume=True).go()
    assert again.inputs == []
    assert (tmp_path / "model.pt").exists() == bool(first.inputs)
    assert Run(tmp_path, 1, minutes=5, resume=True).go().inputs, "more minutes go on"


def test_the_middle_of_an_epoch_is_not_drawn_again(tmp_path: Path) -> None:
    first = Run(tmp_path, 2)
    first.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), lambda engine: engine.terminate())
    first.go()
    second = Run(tmp_path, 2, resume=True).go()
    assert (len(first.inputs), len(second.inputs)) == (3, 2 * LENGTH - 3)
    assert not set(first.inputs) & set(second.inputs)


def test_a_damaged_checkpoint_is_an_error(tmp_path: Path) -> None:
    Run(tmp_path, 2).go()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    newest.write_bytes(newest.read_bytes()[:500])
    with pytest.raises(UnreadableError, match=r"^[^\n]*checkpoint_2.pt is damaged; remove it [^\n.]*$"):
        Run(tmp_path, 3, resume=True)
    newest.unlink()
    assert Run(tmp_path, 3, resume=True).trainer.state.epoch == 1


def test_another_network_is_an_error(tmp_path: Path) -> None:
    Run(tmp_path, 1).go()
    with pytest.raises(RefusedError, match=r"^[^\n]* is of another network: size mismatch for 0.weight[^\n]*_dir$"):
        Run(tmp_path, 2, channels=3, resume=True)


def test_what_is_learned_must_be_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Run(tmp_path, 1).go()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    stored = torch.load(newest, weights_only=True)
    with caplog.at_level(logging.WARNING):
        Run(tmp_path, 2, minutes=5, resume=True)
    assert "holds no budget" in caplog.text
    torch.save({name: part for name, part in stored.items() if name != "ema"}, newest)
    with pytest.raises(RefusedError, match="holds no ema; resume with the config"):
        Run(tmp_path, 2, resume=True)


def test_checkpoints_of_older_versions_load(tmp_path: Path) -> None:
    """They hold the schedule, too."""
    first = Run(tmp_path, 1, SCHEDULES["one cycle"]).go()
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    stored = torch.load(newest, weights_only=True)
    assert set(stored) == {"network", "ema", "optimizer", "trainer"}
    schedule = SCHEDULES["one cycle"](first.optimizer, LENGTH).state_dict()
    stored["lr_scheduler"] = {name: value for name, value in schedule.items() if not callable(value)}
    torch.save(stored, newest)
    assert len(Run(tmp_path, 4, SCHEDULES["one cycle"], resume=True).go().inputs) == 3 * LENGTH


def test_resumed_runs_keep_no_more_checkpoints(tmp_path: Path) -> None:
    for epochs in (2, 4, 5):
        Run(tmp_path, epochs, resume=True).go()
    assert sorted(path.name for path in tmp_path.glob("checkpoint_*")) == ["checkpoint_4.pt", "checkpoint_5.pt"]


def kill() -> None:
    raise KeyboardInterrupt


def test_overwriting_leaves_no_checkpoint_of_the_former_training(tmp_path: Path) -> None:
    """Its epochs may be later ones; and a new training may stop before its first checkpoint."""
    Run(tmp_path, 9).go()
    kept = [tmp_path / name for name in ("checkpoint_best.pt", "notes.txt")]
    for path in kept:
        path.write_text("somebody's")
    Run(tmp_path, 2, overwrite=True)
    assert latest_checkpoint(tmp_path), "nothing has begun"
    stopped = Run(tmp_path, 5, overwrite=True)
    stopped.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=2), kill)
    with pytest.raises(KeyboardInterrupt):
        stopped.go()
    assert latest_checkpoint(tmp_path) is None
    assert len(Run(tmp_path, 2, overwrite=True).go(stop=1).inputs) == LENGTH
    assert len(Run(tmp_path, 3, resume=True).go().inputs) == 2 * LENGTH
    assert all(path.read_text() == "somebody's" for path in kept)
    assert sorted(path.name for path in tmp_path.glob("checkpoint_[0-9]*")) == ["checkpoint_2.pt", "checkpoint_3.pt"]


def test_without_a_checkpoint_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Run(tmp_path, 1, resume=True)
    assert "training starts afresh" in caplog.text
