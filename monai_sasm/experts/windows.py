"""A transformer sees images of any size through windows of the size it was trained on."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn


class Windowed(nn.Module):
    """Evaluates a network in overlapping windows, blended with Gaussian weights.

    The fixed positions of a transformer's tokens mean nothing beyond the extent of its training crops, and attention
    costs the square of the number of tokens; so a larger image is seen through windows as large as those crops.

    Args:
        network: called as MONAI's ``DiffusionModelUNet``.
        size: side of a window in pixels; images up to that size are seen whole.
        overlap: share of a window that the next one overlaps, 0 to 1.
        batch: windows per network call.
    """

    def __init__(self, network: nn.Module, size: int, overlap: float = 0.25, batch: int = 16) -> None:
        super().__init__()
        if size < 1 or not 0 <= overlap < 1 or batch < 1:
            raise ValueError(f"size and batch must be at least 1, overlap in [0, 1); got {size}, {batch} and {overlap}")
        self.network, self.size, self.overlap, self.batch = network, size, overlap, batch

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, class_labels: Tensor | None = None
    ) -> Tensor:
        """Same arguments as the network; larger images of one batch must share their time and label."""
        if self.training or max(x.shape[2:]) <= self.size:
            whole: Tensor = self.network(x, timesteps=timesteps, context=context, class_labels=class_labels)
            return whole
        if context is not None or bool((timesteps != timesteps[0]).any()):
            raise ValueError("images larger than a window need one time for the whole batch, and no context")
        label = class_labels

        def predict(windows: Tensor) -> Tensor:
            keywords: dict[str, Any] = {} if label is None else {"class_labels": label[:1].expand(len(windows))}
            seen: Tensor = self.network(windows, timesteps=timesteps[:1].expand(len(windows)), **keywords)
            return seen

        roi = [min(side, self.size) for side in x.shape[2:]]
        blended = sliding_window_inference(x, roi, self.batch, predict, overlap=self.overlap, mode="gaussian")
        return torch.as_tensor(blended)
