"""Batches of several data sets in one training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from monai_sasm.datasets.draws import Draws, share


class BatchMixture(Dataset[dict[str, torch.Tensor]]):
    """Each batch comes from one of the data sets, drawn anew, for a loader that does not batch (``batch_size=None``).

    Args:
        parts: data sets whose items are batches that are drawn anew each time, whatever the index.
        weights: relative frequencies of the parts' batches.
        length: batches per epoch, over all processes of a distributed run.
        seed: of the choice, see :class:`~monai_sasm.datasets.draws.Draws`.
    """

    def __init__(self, parts: Sequence[Dataset[Any]], weights: Sequence[float], length: int, seed: int = 0) -> None:
        if len(parts) != len(weights) or not sum(weights) > 0 or min(weights) < 0:
            raise ValueError(f"one weight, not negative, per part is needed, got {list(weights)} for {len(parts)}")
        self.parts, self.length, self.draws = list(parts), share(length), Draws(seed)
        self.shares = [weight / sum(weights) for weight in weights]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A batch; ``index`` only ends the epoch."""
        if index >= self.length:
            raise IndexError(index)
        batch: dict[str, torch.Tensor] = self.parts[int(self.draws.random.choice(len(self.parts), p=self.shares))][0]
        return batch
