"""Checkpoints that hold everything a run needs to go on as if it had not stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver


class Checkpoints:
    """Save network, optimizer, schedule and the trainer itself; pick up the newest file on request.

    MONAI's ``CheckpointSaver`` needs the trainer in its dictionary before the trainer exists, which a config cannot
    express; this handler adds the engine it is attached to.

    Args:
        folder: where ``checkpoint_*.pt`` files go; made if missing.
        objects: name -> object with ``state_dict``; the trainer is added.
        interval: epochs between checkpoints; the last epoch is always saved.
        resume: load the newest checkpoint in ``folder`` first; without one, training starts afresh.
        keep: how many checkpoints stay on disk.
    """

    def __init__(
        self, folder: str | Path, objects: Mapping[str, Any], interval: int = 5, resume: bool = False, keep: int = 2
    ) -> None:
        self.folder, self.objects, self.interval = Path(folder), dict(objects), interval
        self.resume, self.keep = resume, keep

    def attach(self, engine: Engine) -> None:
        """Load if asked to, and register the saver on the trainer."""
        everything = {**self.objects, "trainer": engine}
        newest = latest_checkpoint(self.folder)
        if self.resume and newest is not None:
            max_epochs = engine.state.max_epochs
            Checkpoint.load_objects(everything, torch.load(newest, map_location="cpu", weights_only=True))
            engine.state.max_epochs = max_epochs  # the config decides how far to go, not the interrupted run
        saver = Checkpoint(
            everything,
            DiskSaver(str(self.folder), create_dir=True, require_empty=False),
            n_saved=self.keep,
            global_step_transform=lambda trainer, _: trainer.state.epoch,
        )
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval) | Events.COMPLETED, saver)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest ``checkpoint_*.pt`` in ``folder``, or ``None``."""
    checkpoints = sorted(Path(folder).glob("checkpoint_*.pt"), key=lambda path: path.stat().st_mtime)
    return checkpoints[-1] if checkpoints else None


def starting_from(network: torch.nn.Module, weights: str | Path, device: str | torch.device) -> torch.nn.Module:
    """``network`` on ``device``, filled from the state dict in the file ``weights``; an empty path leaves it random.

    A network that has ``adopted``, as :class:`~monai_sasm.experts.unet.ResidualUNet` has, says itself where the weights
    of a narrower one belong. Where any other layer takes more input channels than the weights know, the further ones
    come last and start at zero.
    """
    if str(weights):
        state = torch.load(weights, map_location="cpu", weights_only=True)
        adopt = getattr(network, "adopted", None)
        if callable(adopt):
            state = adopt(state)
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        network.load_state_dict({name: _widened(value, wanted.get(name)) for name, value in state.items()})
    return network.to(device)


def _widened(weight: torch.Tensor, shape: torch.Size | None) -> torch.Tensor:
    """Zeros for further input channels, if those are all that differs."""
    if shape is None or weight.ndim < 2 or len(shape) != weight.ndim or shape[1] <= weight.shape[1]:
        return weight
    if (shape[0], *shape[2:]) != (weight.shape[0], *weight.shape[2:]):
        return weight
    return torch.cat([weight, weight.new_zeros(shape[0], shape[1] - weight.shape[1], *shape[2:])], 1)
