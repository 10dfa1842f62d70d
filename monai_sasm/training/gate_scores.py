"""What metric handlers look at when a gate is judged: its outputs with the classes of other modalities left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_sasm.training.gate_loss import forbid


def by_block(output: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """``(logits, target)``, both ``(B, E, h, w)``, for the cross-entropy; from an engine with ``decollate: false``."""
    example = output["label"]
    return forbid(output["pred"].float(), example["allowed"]), example["target"]


def by_image(output: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """``(mean weights (B, E), largest true class (B,))``: what is mostly wrong with an image, for the accuracy."""
    logits, target = by_block(output)
    return torch.softmax(logits, 1).mean((2, 3)), target.mean((2, 3)).argmax(1)
