"""Batches from several data sets, in the shares asked for."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset

from monai_sasm.training.mixture import BatchMixture


class Constant(Dataset[dict[str, torch.Tensor]]):
    """Always the same batch."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"clean": torch.full((1,), self.value, dtype=torch.float32)}


def test_parts_come_in_their_shares() -> None:
    mixture = BatchMixture([Constant(0), Constant(1)], [3, 1], length=2000, seed=1)
    drawn = torch.cat([batch["clean"] for batch in mixture])
    assert len(drawn) == len(mixture) == 2000
    assert float(drawn.mean()) == pytest.approx(0.25, abs=0.03)
    with pytest.raises(IndexError):
        mixture[2000]


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="one weight, not negative, per part"):
        BatchMixture([Constant(0)], [1, 2], length=1)
