"""Batches with and without lesions: the halves differ by the lesions alone."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.degradations.lesions import Lesions
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.training.batches import PreparePaired
from monai_sasm.training.contrast import PrepareWithLesions

BATCH = {"clean": torch.zeros(3, 1, 32, 32), "noisy": 0.1 * torch.randn(3, 1, 32, 32)}


def test_input_and_target_differ_by_the_same_lesions() -> None:
    prepare = PrepareWithLesions(PreparePaired(NoiseEstimator()), Lesions((0.01, 0.1)), seed=3)
    noisy, clean, (sigma,), _ = prepare(BATCH)
    assert noisy.shape == clean.shape == sigma.shape == (6, 1, 32, 32)
    torch.testing.assert_close(noisy[3:] - noisy[:3], clean[3:] - clean[:3])
    assert torch.equal(noisy[:3], BATCH["noisy"])
    assert torch.equal(sigma[3:], sigma[:3]), "the noise map must not tell where the lesions are"
    assert float((clean[3:] - clean[:3]).abs().amax((1, 2, 3)).min()) > 0.005
    again = PrepareWithLesions(PreparePaired(NoiseEstimator()), Lesions((0.01, 0.1)), seed=3)(BATCH)
    assert torch.equal(again[1], clean)
    assert not torch.equal(prepare(BATCH)[1], clean), "every batch has lesions of its own"


def test_weights_in_the_target_are_refused() -> None:
    prepare = PrepareWithLesions(PreparePaired(change_weight=1.0), Lesions((0.01, 0.1)))
    with pytest.raises(ValueError, match="got 1 and 2 channels"):
        prepare(BATCH)
