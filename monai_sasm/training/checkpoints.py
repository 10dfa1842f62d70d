"""Checkpoints that hold everything a run needs to go on as if it had not stopped.

They are made at the end of an epoch, and what an epoch draws follows from seeds and from the iterations before it, see
:func:`monai_sasm.datasets.draws.begin_epoch`: no generator has to be kept.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.functional.misfit import misfit

logger = logging.getLogger(__name__)
_LOADING = (RuntimeError, ValueError, KeyError, TypeError)  # what loading the state of something else raises


class Checkpoints:
    """Save network, optimizer, handlers and the trainer itself; pick up the newest file on request.

    MONAI's ``CheckpointSaver`` needs the trainer in its dictionary before the trainer exists, which a config cannot
    express; this handler adds the engine it is attached to.

    A checkpoint says what was learned and how far training is; the config says the rest, as it does of a new run: how
    many epochs, how many batches each has, learning rate and other settings of optimizers. A learning rate schedule is
    that of the config, at the step where training stands. A run that has all of its epochs trains no further.

    Args:
        folder: where ``checkpoint_*.pt`` files go; made if missing.
        objects: name -> object with ``state_dict``; the trainer is added. Of schedules nothing is kept.
        interval: epochs between checkpoints; the last epoch is always saved.
        resume: load the newest checkpoint in ``folder`` first; without one, training starts afresh.
        keep: how many checkpoints stay on disk.
        overwrite: unless ``resume``, delete the checkpoints in ``folder`` when training begins: were it stopped before
            its own first one, it would be resumed from another training's.
    """

    def __init__(
        self,
        folder: str | Path,
        objects: Mapping[str, Any],
        interval: int = 5,
        resume: bool = False,
        keep: int = 2,
        overwrite: bool = False,
    ) -> None:
        self.folder, self.interval = Path(folder), interval
        self.schedules = [part for part in objects.values() if isinstance(part, LRScheduler)]
        self.objects = {name: part for name, part in objects.items() if not isinstance(part, LRScheduler)}
        self.resume, self.keep, self.overwrite = resume, keep, overwrite
        self.resumed = 0  # iterations of earlier runs

    def attach(self, engine: Engine) -> None:
        """Load if asked to, and register the saver on the trainer.

        Raises:
            UnreadableError: the newest checkpoint is damaged.
            RefusedError: it is that of another network or optimizer.
        """
        newest = latest_checkpoint(self.folder) if self.resume else None
        if newest is not None:
            self._load(engine, newest)
        elif self.resume:
            logger.warning("no checkpoint in %s: training starts afresh", self.folder)
        elif self.overwrite:
            engine.add_event_handler(Events.STARTED, self._delete_earlier)
        saver = Checkpoint(
            {**self.objects, "trainer": engine},
            DiskSaver(str(self.folder), create_dir=True, require_empty=False),
            n_saved=self.keep,
            global_step_transform=lambda trainer, _: trainer.state.epoch,
            greater_or_equal=True,
        )
        if newest is not None:
            found = _checkpoints(self.folder)  # those beyond the newest are of another run
            earlier = found[: [path for _, path in found].index(newest) + 1][-self.keep :]
            saver.load_state_dict({"_saved": [(epoch, path.name) for epoch, path in earlier]})

        def save(engine: Engine) -> None:
            if engine.state.iteration > self.resumed:
                saver(engine)

        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval) | Events.COMPLETED, save)

    def _delete_earlier(self) -> None:
        """Once: an engine that is run again has checkpoints of its own."""
        for _, path in _checkpoints(self.folder) if self.overwrite else ():
            path.unlink(missing_ok=True)  # each process of a training does it
        self.overwrite = False

    def _load(self, engine: Engine, path: Path) -> None:
        stored = _read(path)
        lacking = [name for name in self.objects if name not in stored]
        learned = [name for name in lacking if isinstance(self.objects[name], torch.nn.Module | Optimizer)]
        if learned or "trainer" not in stored:
            raise RefusedError(f"{path} holds no {', '.join(learned) or 'trainer'}; {_WAY}")
        if lacking:
            logger.warning("%s holds no %s: what that kept so far begins anew", path, ", ".join(lacking))
        for name in (name for name in self.objects if name in stored):  # the network first: it tells best what differs
            try:
                _load_state(self.objects[name], stored[name])
            except _LOADING as error:
                raise RefusedError(f"{path} is of another {name}: {_first(error)}; {_WAY}") from error
        state = engine.state
        max_epochs, length = state.max_epochs, state.epoch_length
        engine.load_state_dict(stored["trainer"])
        if length and state.epoch_length and length != state.epoch_length:
            state.iteration, state.epoch_length = state.iteration * length // state.epoch_length, length
        state.max_epochs, self.resumed = max_epochs, state.iteration
        if max_epochs is not None and state.epoch >= max_epochs:
            self._end(engine)
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no optimizer has made these steps
            for schedule in self.schedules:
                for _ in range(state.iteration):
                    schedule.step()

    def _end(self, engine: Engine) -> None:
        """Let a run end at once whose epochs are all trained; ignite would begin with the first one again."""
        epochs = engine.state.max_epochs = engine.state.epoch
        logger.warning("%d epochs are trained already: for further ones give a larger max_epochs", epochs)

        def end(engine: Engine) -> None:
            engine.state.epoch, engine.state.iteration = epochs, self.resumed
            engine.terminate()

        engine.add_event_handler(Events.STARTED, end)


_WAY = "resume with the config that it was made with, or choose another output_dir"


def _read(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch has no error of its own for it
        raise UnreadableError(f"{path} is damaged; remove it to resume from the checkpoint before it") from error
    if not isinstance(stored, dict):
        raise RefusedError(f"{path} is no checkpoint of a training; {_WAY}")
    return stored


def _load_state(part: Any, stored: Mapping[str, Any]) -> None:
    """Of an optimizer what it gathered, not its settings."""
    if isinstance(part, Optimizer):
        groups = part.state_dict()["param_groups"]
        sizes, wanted = ([len(group["params"]) for group in each] for each in (stored["param_groups"], groups))
        if sizes != wanted:
            raise ValueError(f"groups of {sizes} parameters, not {wanted}")
        stored = {**stored, "param_groups": groups}
    part.load_state_dict(stored)


def _first(error: Exception) -> str:
    """The first fault of a message of ``load_state_dict``, which lists them in lines of their own."""
    lines = [line.strip(" .\t") for line in str(error).splitlines()]
    return lines[min(1, len(lines) - 1)] if lines else type(error).__name__


def keep_earlier(weights: Path, resume: bool) -> None:
    """Refuse to begin a training where another one left something.

    Args:
        weights: file that the training will write, beside its checkpoints.
        resume: whether the newest checkpoint, if there is one, is gone on from.

    Raises:
        RefusedError: the file exists, or checkpoints beside it.
    """
    newest = latest_checkpoint(weights.parent)
    if (newest is None or not resume) and (newest is not None or weights.exists()):
        raise RefusedError(
            f"{weights.parent} holds {newest.name if newest else weights.name} of an earlier training: choose another "
            f"output_dir, {'' if newest is None else 'resume it (resume=True), '}or replace it (overwrite=True)"
        )


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest ``checkpoint_EPOCH.pt`` in ``folder``, or ``None``."""
    return max((path for _, path in _checkpoints(Path(folder))), key=lambda path: path.stat().st_mtime, default=None)


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Epoch and file of each, by epoch."""
    named = ((re.fullmatch(r"checkpoint_(\d+)\.pt", path.name), path) for path in folder.glob("checkpoint_*.pt"))
    return sorted((int(match[1]), path) for match, path in named if match)


def starting_from(network: torch.nn.Module, weights: str | Path, device: str | torch.device) -> torch.nn.Module:
    """``network`` on ``device``, filled from the state dict in the file ``weights``; an empty path leaves it random.

    A network that has ``adopted``, as :class:`~monai_sasm.experts.unet.ResidualUNet` has, says itself where the weights
    of a narrower one belong. Where any other layer takes more input channels than the weights know, the further ones
    come last and start at zero.

    Raises:
        RefusedError: the weights are those of another network.
    """
    if str(weights):
        state = loaded = torch.load(weights, map_location="cpu", weights_only=True)
        adopt = getattr(network, "adopted", None)
        if callable(adopt) and isinstance(state, Mapping):
            given, state = state, adopt(state)
            wider = [name for name in given if state[name].shape != given[name].shape]
            if wider:
                logger.warning(
                    "%s is of a narrower network: %d of its %d weights are widened", weights, len(wider), len(given)
                )
        wanted = {name: value.shape for name, value in network.state_dict().items()}
        try:
            network.load_state_dict({name: _widened(value, wanted.get(name)) for name, value in state.items()})
        except (RuntimeError, AttributeError):
            raise RefusedError(
                f"initial_weights {weights} do not fit the network: {misfit(network, loaded)}; give weights of this "
                "network, or the network_def that they were trained with"
            ) from None  # torch's error lists every weight
    return network.to(device)


def _widened(weight: torch.Tensor, shape: torch.Size | None) -> torch.Tensor:
    """Zeros for further input channels, if those are all that differs."""
    if shape is None or weight.ndim < 2 or len(shape) != weight.ndim or shape[1] <= weight.shape[1]:
        return weight
    if (shape[0], *shape[2:]) != (weight.shape[0], *weight.shape[2:]):
        return weight
    return torch.cat([weight, weight.new_zeros(shape[0], shape[1] - weight.shape[1], *shape[2:])], 1)
