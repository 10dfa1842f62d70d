"""What the gate meets on its second pass: images that an expert has been at already."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from monai_sasm.training.gate_bank import Example, Source
from monai_sasm.types import ImageBatch


class SecondPassSource:
    """Examples of another source after one expert has repaired its fault; the other faults are still there.

    A restored photo is smoother than a photo, and a gate that never saw one takes it for a wet window.

    Args:
        source: what the first pass was shown.
        repaired: class of the fault that is gone.
        restore: its expert, ``(1, C, H, W)`` -> the same shape.
        strength: range of the share of the restored image that the first pass mixed in.
    """

    def __init__(
        self,
        source: Source,
        repaired: str,
        restore: Callable[[ImageBatch], ImageBatch],
        strength: tuple[float, float] = (0.9, 1.0),
    ) -> None:
        if not 0 <= strength[0] <= strength[1] <= 1:
            raise ValueError(f"strength must be an increasing range in [0, 1], got {strength}")
        self.source, self.repaired, self.restore, self.strength = source, repaired, restore, strength

    def draw(self, generator: torch.Generator) -> Example:
        """One example without the repaired fault."""
        example = self.source.draw(generator)
        if self.repaired not in example.faults:
            raise ValueError(f"the source must have the fault {self.repaired!r}, got {', '.join(example.faults)}")
        mask = example.faults[self.repaired]
        low, high = self.strength
        share = low + (high - low) * float(torch.rand(1, generator=generator))
        correction = self.restore(example.degraded[None].float())[0] - example.degraded
        degraded = example.degraded + share * mask * correction
        return replace(example, degraded=degraded, faults={**example.faults, self.repaired: torch.zeros_like(mask)})
