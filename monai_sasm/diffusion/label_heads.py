"""Noise predicted for every label in one pass of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LabelHeads(nn.Module):
    r"""A network whose output channels are the predictions for all labels, one after the other.

    A diffusion classifier asks about every label. Where the label is embedded beside the time, each asks for a pass of
    its own; here the labels share all layers but the last, and one pass answers all of them:

    .. math:: \epsilon(x_t, t, y) = \epsilon_\varnothing(x_t, t) + \delta_y(x_t, t)

    The last label is 'none', without a deviation :math:`\delta`. What all labels predict is so learnt once: the
    cross-entropy of :class:`monai_sasm.training.labelled.ContrastiveNoiseLoss` has no gradient along it, for the
    probabilities of the labels sum to 1. (With a prediction of its own for each label the cross-entropy drowned the
    squared error, and nothing was learnt.)

    Args:
        network: called as ``network(x, timesteps=, context=)``; gives ``labels * C`` channels, the deviations of the
            classes and last the prediction for 'none'.
        labels: number of labels, 'none' included.
    """

    def __init__(self, network: nn.Module, labels: int) -> None:
        super().__init__()
        if labels < 1:
            raise ValueError(f"labels must be at least 1, got {labels}")
        self.network, self.labels = network, labels

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """``x`` ``(B, C, H, W)``, ``timesteps`` ``(B,)`` -> ``(B, C, H, W)`` for labels ``(B,)``, ``(B, L, C, H, W)``
        for labels ``(B, L)``."""
        if class_labels is None:
            raise ValueError("class_labels are missing: wrap the network in OptionalLabel, or name the label 'none'")
        out = self.network(x, timesteps=timesteps, context=context).unflatten(1, (self.labels, -1))
        every = torch.cat([out[:, :-1] + out[:, -1:], out[:, -1:]], 1)
        chosen = every[torch.arange(len(x), device=x.device)[:, None], class_labels.view(len(x), -1)]
        return chosen if class_labels.ndim == 2 else chosen[:, 0]
