"""Ignite handlers that neither MONAI nor ignite has: gradient clipping and weight export."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

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


class ExportWeights:
    """Write the network's state dict as a bundle's ``model.pt``, every ``interval`` epochs and at the end.

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


class Attach:
    """Attach a handler that the config defines elsewhere, because other parts refer to it (the weight average, say).

    MONAI's ``check_properties`` takes every element of a config's ``train::handlers`` for a mapping.
    """

    def __init__(self, handler: Any) -> None:
        self.handler = handler

    def attach(self, engine: Engine) -> None:
        """Register on an engine."""
        self.handler.attach(engine)
