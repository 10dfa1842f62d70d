"""What metric handlers look at: engine outputs cut to a display window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def windowed(
    low: float, high: float
) -> Callable[[Sequence[dict[str, Any]]], tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """An ``output_transform`` giving predictions and targets clipped to ``[low, high]`` and mapped to [0, 1].

    CT is compared in the window in which it is read; the usual [-160, 240] HU is ``(-0.16, 0.24)`` in working scale.
    """
    if not low < high:
        raise ValueError(f"a window needs low < high, got {low} and {high}")

    def cut(image: torch.Tensor) -> torch.Tensor:
        return ((image.float() - low) / (high - low)).clamp(0, 1)

    def transform(outputs: Sequence[dict[str, Any]]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        return [cut(output["pred"]) for output in outputs], [cut(output["label"]) for output in outputs]

    return transform
