"""A time budget: train for so many minutes, the learning rate falling to zero over them."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import distributed
from torch.optim import Optimizer

from monai_sasm.datasets.draws import processes

logger = logging.getLogger(__name__)


class TimeBudget:
    """Ends training after ``minutes`` and sets the learning rate by the share of them that has passed.

    The rate rises over the first ``warmup`` of the time and then follows half a cosine to zero. Time spent before an
    interruption counts: put the handler among the checkpoint's objects. Without ``minutes`` it does nothing. In a
    distributed run the clock of the first process is that of all.

    Args:
        optimizer: whose learning rates are set, each relative to the value it starts with.
        minutes: wall-clock time of the training, validation included; ``None`` trains to ``max_epochs``.
        warmup: share of the time, 0 to 1.
    """

    def __init__(self, optimizer: Optimizer, minutes: float | None = None, warmup: float = 0.02) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"minutes must be positive, got {minutes}")
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup is a share of the time in [0, 1), got {warmup}")
        self.optimizer, self.minutes, self.warmup = optimizer, minutes, warmup
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.spent = 0.0  # minutes of earlier runs
        self.started: float | None = None  # clock at the start of this run

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        if self.minutes is None:
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._set_rates)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end)
        engine.add_event_handler(Events.COMPLETED, self._stop)

    @property
    def passed(self) -> float:
        """Minutes trained so far, earlier runs included."""
        return self.spent + (0.0 if self.started is None else (time.monotonic() - self.started) / 60)

    def rate(self, share: float) -> float:
        """Learning rate relative to its start after ``share`` of the time."""
        if share < self.warmup:
            return share / self.warmup
        return 0.5 * (1 + math.cos(math.pi * min((share - self.warmup) / (1 - self.warmup), 1)))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"spent": self.passed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the time that was left."""
        self.spent = float(state["spent"])

    def _start(self, engine: Engine) -> None:
        self.started = time.monotonic()
        self._end(engine)  # where earlier runs have used it up

    def _stop(self) -> None:
        self.spent, self.started = self.passed, None
        if self.spent < (self.minutes or 0):
            logger.warning("ended after %.1f of %g minutes, before the learning rate was 0", self.spent, self.minutes)

    def _first_passed(self) -> float:
        """``passed`` of the first process: one that ended alone would leave the others waiting for its gradients."""
        if processes() == 1:
            return self.passed
        device = self.optimizer.param_groups[0]["params"][0].device
        passed = torch.tensor(self.passed, dtype=torch.float64, device=device)
        distributed.broadcast(passed, 0)
        return float(passed)

    def _set_rates(self) -> None:
        share = self._first_passed() / (self.minutes or 1)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.rate(share)

    def _end(self, engine: Engine) -> None:
        if self._first_passed() >= (self.minutes or 0):
            engine.terminate()
