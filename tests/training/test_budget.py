"""A time budget ends training, moves the learning rate, and counts the time before an interruption."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from torch import distributed, multiprocessing

from monai_sasm.training import budget
from monai_sasm.training.budget import TimeBudget


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stands in for the ``time`` module."""
    stand_in = Clock()
    monkeypatch.setattr(budget, "time", stand_in)
    return stand_in


def optimizer(rate: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def train(handler: TimeBudget, clock: Clock, seconds: float = 6.0, epochs: int = 1000) -> list[float]:
    """Iterations of so many seconds, ten to an epoch; returns the learning rate of each."""
    rates = []

    def step(engine: Engine, _: int) -> None:
        clock.now += seconds
        rates.append(handler.optimizer.param_groups[0]["lr"])

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(10), max_epochs=epochs)
    return rates


def test_training_ends_when_the_time_is_up(clock: Clock) -> None:
    assert len(train(TimeBudget(optimizer(), minutes=2.5), clock)) == 25


def test_without_minutes_nothing_happens(clock: Clock) -> None:
    assert train(TimeBudget(optimizer()), clock, epochs=3) == [0.1] * 30


def test_the_rate_rises_and_falls_to_zero(clock: Clock) -> None:
    rates = train(TimeBudget(optimizer(), minutes=10, warmup=0.1), clock)
    assert rates[:11] == pytest.approx([0.01 * k for k in range(11)])
    assert rates[55] == pytest.approx(0.05)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.0001


def test_half_a_cosine() -> None:
    handler = TimeBudget(optimizer(), minutes=1, warmup=0.0)
    assert [handler.rate(share) for share in (0, 0.25, 0.5, 1, 1.5)] == pytest.approx([1, 0.853553, 0.5, 0, 0])


def test_every_group_keeps_its_own_rate(clock: Clock) -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.4)]
    handler = TimeBudget(torch.optim.SGD(groups), minutes=1, warmup=0.0)
    train(handler, clock, seconds=30.0)
    assert [group["lr"] for group in handler.optimizer.param_groups] == pytest.approx([0.05, 0.2])


def test_time_before_an_interruption_counts_and_time_between_does_not(clock: Clock) -> None:
    first = TimeBudget(optimizer(), minutes=3)
    train(first, clock, epochs=1)
    saved = first.state_dict()
    assert saved == {"spent": pytest.approx(1.0)}
    clock.now += 86400
    second = TimeBudget(optimizer(), minutes=3)
    second.load_state_dict(saved)
    clock.now += 600  # loading the data
    assert second.passed == pytest.approx(1.0)
    assert len(train(second, clock)) == 20


def test_it_is_said_that_the_epochs_were_too_few(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    train(TimeBudget(optimizer(), minutes=3), clock, epochs=3)
    assert [line for line in caplog.messages if "ended" in line] == []
    train(TimeBudget(optimizer(), minutes=3), clock, epochs=2)
    told = [line for line in caplog.messages if "ended" in line]
    assert told == ["ended after 2.0 of 3 minutes, before the learning rate was 0"]


def test_a_second_run_goes_on(clock: Clock) -> None:
    handler = TimeBudget(optimizer(), minutes=3)
    assert len(train(handler, clock, epochs=1)) == 10
    clock.now += 3600
    assert len(train(handler, clock)) == 20


@pytest.mark.parametrize(("minutes", "warmup"), [(0, 0.1), (-1, 0.1), (5, 1.0), (5, -0.1)])
def test_senseless_budgets_are_refused(minutes: float, warmup: float) -> None:
    with pytest.raises(ValueError, match=r"must be positive|share of the time"):
        TimeBudget(optimizer(), minutes, warmup)


def train_together(process: int, folder: str) -> None:
    """One of two processes whose clocks differ: 10 or 11 iterations of 6 s or 5.5 s in a minute."""
    store = distributed.FileStore(f"{folder}/store", 2)
    patience = timedelta(seconds=20)
    distributed.init_process_group("gloo", store=store, rank=process, world_size=2, timeout=patience)
    clock = Clock()
    clock.now += 100 * process
    budget.time = clock  # type: ignore[attr-defined]
    handler, rates = TimeBudget(optimizer(), minutes=1), []

    def step(engine: Engine, _: int) -> None:
        clock.now += 5.5 if process else 6.0
        distributed.all_reduce(torch.zeros(1))  # as gradients are
        rates.append(handler.optimizer.param_groups[0]["lr"])

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(10), max_epochs=1000)
    Path(folder, f"{process}.json").write_text(json.dumps(rates))
    distributed.destroy_process_group()


@pytest.mark.slow
def test_all_processes_go_by_one_clock(tmp_path: Path) -> None:
    multiprocessing.spawn(train_together, (str(tmp_path),), nprocs=2)
    first, second = (json.loads((tmp_path / f"{process}.json").read_text()) for process in range(2))
    assert len(first) == 10
    assert first == second
