"""Batches with and without lesions: what :class:`monai_sasm.losses.contrast.ContrastGainLoss` compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from monai_sasm.datasets.draws import Draws
from monai_sasm.degradations.lesions import Lesions
from monai_sasm.training.batches import Prepared


class PrepareWithLesions:
    """Every image twice: as another ``prepare_batch`` made it, then with lesions in both input and target.

    Input ``[y; y + s]``, target ``[x; x + s]`` along the batch, each ``(2 B, C, H, W)``. The noise map is that of
    ``y`` in both halves, so that the network's answers differ by the lesions alone.

    Args:
        prepare: gives input, target and further arguments.
        lesions: draws s, in the unit of the images.
        seed: seed of the lesions.
    """

    def __init__(self, prepare: Callable[..., Prepared], lesions: Lesions, seed: int = 0) -> None:
        self.prepare, self.lesions = prepare, lesions
        self.draws = Draws(seed)

    def __call__(
        self,
        batch: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **options: Any,
    ) -> Prepared:
        noisy, clean, arguments, keywords = self.prepare(batch, device, non_blocking, **options)
        if noisy.shape[1] != clean.shape[1]:
            raise ValueError(
                "lesions are put into input and target of equal channels, without weights or neighbours; "
                f"got {noisy.shape[1]} and {clean.shape[1]} channels"
            )
        images, channels, height, width = noisy.shape
        field = self.lesions.draw((images, channels, height, width), self.draws.generator).field.to(noisy)
        doubled = tuple(torch.cat([argument, argument]) for argument in arguments)
        return torch.cat([noisy, noisy + field]), torch.cat([clean, clean + field]), doubled, keywords
