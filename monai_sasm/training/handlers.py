"""Ignite handlers that neither MONAI nor ignite has: gradient clipping, weight export, draws of each epoch, loss."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler, ProgressBar
from monai.data import DataLoader
from monai.data.utils import set_rnd
from monai.engines.utils import IterationEvents
from torch import nn

from monai_sasm.datasets.draws import begin_epoch
from monai_sasm.io.commit import replacing


class ClipGradientNorm:
    """Scale the gradient so that its norm is at most ``max_norm``, after each backward pass."""

    def __init__(self, network: nn.Module, max_norm: float = 1.0) -> None:
        self.network, self.max_norm = network, max_norm

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)


class SeedEpochs:
    """Every epoch draws what belongs to it, see :func:`~monai_sasm.datasets.draws.begin_epoch`.

    The seed is ``torch``'s at the time of attaching: what ``set_determinism`` was given.
    """

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI trainer."""
        self.seed = torch.initial_seed()
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        loader: Any = engine.data_loader  # type: ignore[attr-defined]
        seed = begin_epoch(self.seed, engine.state.iteration)
        if getattr(loader, "generator", None) is not None:
            loader.generator.manual_seed(seed)
        if isinstance(loader, DataLoader):  # MONAI's, whose transforms have generators of their own
            set_rnd(loader.dataset, seed)


class AverageWeights:
    """Attach ignite's ``EMAHandler``, whose momentum, if it warms up, is that of where training stands."""

    def __init__(self, ema: EMAHandler) -> None:
        self.ema = ema

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        self.ema.attach(engine)
        engine.add_event_handler(Events.STARTED, self._catch_up)

    def _catch_up(self, engine: Engine) -> None:
        schedule: Any = getattr(self.ema, "momentum_scheduler", None)  # there is none without warm-up
        if schedule is not None:
            schedule.event_index = engine.state.iteration


class BestMetric:
    """The best key metric of a MONAI evaluator, for a checkpoint: what its log compares with."""

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator

    def state_dict(self) -> dict[str, float]:
        """Value and epoch."""
        state = self.evaluator.state
        return {"best_metric": float(state.best_metric), "best_metric_epoch": int(state.best_metric_epoch)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Compare with it from now on."""
        self.evaluator.state.best_metric = state["best_metric"]
        self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]


class ExportWeights:
    """Write the network's state dict as a bundle's ``model.pt``, every ``interval`` epochs and at the end.

    Nothing is written before the first iteration.

    Args:
        network: the module to export, for example the averaged network of ignite's ``EMAHandler``.
        path: target file; replaced atomically, parent folders are made.
        dtype: storage type of floating-point tensors. float16 halves the file; the loss in PSNR is below 0.001 dB
            for the networks here, and loading converts back to float32.
        interval: epochs between writes.
    """

    def __init__(self, network: nn.Module, path: str | Path, dtype: str = "float16", interval: int = 5) -> None:
        self.network, self.path, self.interval = network, Path(path), interval
        self.dtype = getattr(torch, dtype)

    def attach(self, engine: Engine) -> None:
        """Register on a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval) | Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if not engine.state.iteration:
            return
        state = {
            key: (value.to(self.dtype) if value.is_floating_point() else value).contiguous().cpu()
            for key, value in self.network.state_dict().items()
        }
        with replacing(self.path) as file:
            torch.save(state, file)


def loss_of(engine: Engine) -> float:
    """The loss of the last iteration of a MONAI trainer, whose output may be a list of one item for each image."""
    output: Any = engine.state.output
    return float((output[0] if isinstance(output, list) else output)["loss"].detach())


class LogMeanLoss:
    """Log the mean training loss of each epoch; MONAI's ``StatsHandler`` logs a loss per iteration only."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._log)

    def _collect(self, engine: Engine) -> None:
        self.losses.append(loss_of(engine))

    def _log(self, engine: Engine) -> None:
        mean = sum(self.losses) / max(len(self.losses), 1)
        logging.getLogger(__name__).info("epoch %d: mean training loss %.5f", engine.state.epoch, mean)
        self.losses.clear()


class ShowProgress:
    """A bar for each epoch, with the loss of the last batch, where standard error is a terminal."""

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI trainer."""
        if sys.stderr.isatty():
            ProgressBar().attach(engine, output_transform=lambda _: {"loss": loss_of(engine)})


class StopWithoutLoss:
    """End a training whose loss is no number, before its weights take the place of good ones.

    In half precision a single batch may overflow, which a gradient scaler passes over: a row of them does not. Without
    a scaler one batch is enough to ruin the weights, and short epochs would save them: they are looked at before that.

    Args:
        network: whose weights are looked at, at the end of each epoch; attach this before what saves them.
        row: how many batches one after the other.
    """

    def __init__(self, network: nn.Module | None = None, row: int = 10) -> None:
        self.network, self.row, self.seen = network, row, 0

    def attach(self, engine: Engine) -> None:
        """Register on a MONAI trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        if self.network is not None:
            engine.add_event_handler(Events.EPOCH_COMPLETED | Events.COMPLETED, self._check_weights, self.network)

    def __call__(self, engine: Engine) -> None:
        """Count.

        Raises:
            FloatingPointError: the loss was no number in ``row`` batches one after the other.
        """
        self.seen = 0 if math.isfinite(loss_of(engine)) else self.seen + 1
        if self.seen >= self.row:
            raise FloatingPointError(
                f"the loss was no finite number in the last {self.row} batches, up to the {engine.state.iteration}th: "
                f"{_CAUSES}"
            )

    def _check_weights(self, engine: Engine, network: nn.Module) -> None:
        if not all(bool(weight.isfinite().all()) for weight in network.state_dict().values()):
            raise FloatingPointError(
                f"after batch {engine.state.iteration} the weights are no finite numbers, and are not saved: {_CAUSES}"
            )


_CAUSES = "look for NaN and infinite values in the images, or take a lower learning rate (lr)"


class Attach:
    """Attach a handler that the config defines elsewhere, because other parts refer to it (the weight average, say).

    MONAI's ``check_properties`` takes every element of a config's ``train::handlers`` for a mapping.
    """

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Register on an engine."""
        self.handler.attach(engine)
