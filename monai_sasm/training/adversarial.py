"""What MONAI's ``AdversarialTrainer`` lacks for restoration: it is made for autoencoders, which restore their input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from monai.losses import PatchAdversarialLoss
from monai.utils import AdversarialIterationEvents, AdversarialKeys, CommonKeys
from torch import Tensor, nn

Logits = Sequence[Tensor]
"""One map of logits per scale of a ``MultiScalePatchDiscriminator``."""


class JudgeInferer(Inferer):
    """Logits of a ``MultiScalePatchDiscriminator``: of the image alone, without the generator's other arguments."""

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *_: Any, **__: Any) -> LogitMaps:
        """``inputs`` ``(B, C, H, W)`` -> one map per scale."""
        logits, _features = network(inputs)
        return LogitMaps(logits)


class LogitMaps(list[Tensor]):
    """A list of maps that can be copied as the trainer copies tensors."""

    def detach(self) -> LogitMaps:
        """Without their history."""
        return LogitMaps(part.detach() for part in self)


class GeneratorLoss(nn.Module):
    """``weight`` times the least-squares loss of restored images that are to pass as clean (Mao et al. 2017)."""

    def __init__(self, weight: float = 0.005) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.weight, self.loss = weight, PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def forward(self, fake: Logits) -> Tensor:
        """Logits of restored images -> scalar."""
        loss = self.loss(list(fake), target_is_real=True, for_discriminator=False)
        return self.weight * torch.as_tensor(loss)


class JudgeLoss(nn.Module):
    """Least-squares loss of the discriminator: clean images are real, restored ones are not."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)

    def forward(self, real: Logits, fake: Logits) -> Tensor:
        """Logits of clean and of restored images -> scalar."""
        losses = [
            self.loss(list(part), target_is_real=truth, for_discriminator=True)
            for part, truth in ((real, True), (fake, False))
        ]
        return 0.5 * (torch.as_tensor(losses[0]) + torch.as_tensor(losses[1]))


class RestorationRules:
    """Makes an ``AdversarialTrainer`` train restoration, when attached to it as a handler.

    The real images are the targets, not the degraded inputs; the loss is reported as other trainers do; and the
    trainer's state holds its counters only: networks and optimizers are saved by
    :class:`monai_sasm.training.checkpoints.Checkpoints`, as state dicts, which load without running code.

    Args:
        max_norm: the generator's gradient is scaled to this norm at most.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register on the trainer, which attaches its handlers before it knows its own events and state."""
        engine.register_events(*AdversarialIterationEvents)
        engine.add_event_handler(Events.STARTED, self.leave_networks_to_checkpoints)
        engine.add_event_handler(AdversarialIterationEvents.GENERATOR_FORWARD_COMPLETED, self.show_targets)
        engine.add_event_handler(AdversarialIterationEvents.GENERATOR_LOSS_COMPLETED, self.report_loss)
        engine.add_event_handler(AdversarialIterationEvents.GENERATOR_BACKWARD_COMPLETED, self.clip)

    def leave_networks_to_checkpoints(self, engine: Engine) -> None:
        """The trainer's state holds whole modules, which only ``weights_only=False`` could read."""
        engine.state_dict_user_keys.clear()

    def show_targets(self, engine: Engine) -> None:
        """The discriminator compares with clean images."""
        output: Any = engine.state.output
        output[AdversarialKeys.REALS] = output[CommonKeys.LABEL]

    def report_loss(self, engine: Engine) -> None:
        """``output["loss"]``, which MONAI sets in mixed precision only."""
        output: Any = engine.state.output
        loss = output[AdversarialKeys.RECONSTRUCTION_LOSS] + output[AdversarialKeys.GENERATOR_LOSS]
        output[CommonKeys.LOSS] = loss.detach()

    def clip(self, engine: Engine) -> None:
        """Before the generator's optimizer takes its step."""
        network: Any = engine.state.g_network  # type: ignore[attr-defined]
        nn.utils.clip_grad_norm_(network.parameters(), self.max_norm)
