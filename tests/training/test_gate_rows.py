"""Only the rows that are named move, towards what the examples say; clean blocks can count more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.errors import RefusedError
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.gate.mobilenet import SpatialGate
from monai_sasm.training.gate_bank import DegradedSource
from monai_sasm.training.gate_rows import RowFit, fit_rows

CLASSES = ("clean", "drops", "noise", "dose")


def examples() -> dict[str, torch.Tensor]:
    """The first feature is 1 where there is noise, with one block in four labelled wrongly; the second says nothing."""
    random = torch.Generator().manual_seed(0)
    noisy = (torch.arange(400) % 2).float()
    features = torch.stack([noisy, torch.rand(400, generator=random)], 1)
    told = torch.where(torch.arange(400) % 8 < 2, 1 - noisy, noisy)
    return {"features": features, "target": torch.stack([1 - told, 0 * told, told, 0 * told], 1)}


def test_only_named_rows_move_and_they_fit_the_shares() -> None:
    weight, bias = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(4)
    fitted, offset = fit_rows(examples(), weight, bias, rows=[2], decay=0.0)
    assert torch.equal(fitted[[0, 1, 3]], weight[[0, 1, 3]])
    assert torch.equal(offset[[0, 1, 3]], bias[[0, 1, 3]])
    logits = examples()["features"] @ fitted.T + offset
    noise = logits[:, [0, 2]].softmax(1)[:, 1]
    assert float(noise[1::2].mean()) == pytest.approx(0.75, abs=0.01)
    assert float(noise[::2].mean()) == pytest.approx(0.25, abs=0.01)


def test_clean_blocks_that_count_double_halve_the_odds() -> None:
    weight, bias = torch.zeros(4, 2), torch.zeros(4)
    fitted, offset = fit_rows(examples(), weight, bias, rows=[2], decay=0.0, clean_weight=2.0)
    logits = examples()["features"] @ fitted.T + offset
    noise = logits[:, [0, 2]].softmax(1)[:, 1]
    assert float(noise[1::2].mean()) == pytest.approx(3 / 5, abs=0.01)  # odds 3 : 1 become 3 : 2


def test_a_gate_is_fitted_and_written(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gate = SpatialGate(CLASSES, noise_estimator=NoiseEstimator())
    before = {key: value.clone() for key, value in gate.state_dict().items()}
    photos = [np.random.default_rng(seed).integers(0, 256, (3, 72, 72), dtype=np.uint8) for seed in (0, 1)]
    source = DegradedSource(photos, "PHOTO", {"noise": GaussianNoise(sigma=(0.1, 0.2))}, 64, clean_share=0.5)
    RowFit(gate, ["noise"], [source], [4], NoiseEstimator(), tmp_path / "out" / "model.pt", blocks=10, steps=5).run()
    after = gate.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == ["head.weight", "head.bias"]
    assert not torch.equal(after["head.weight"][2], before["head.weight"][2])
    assert torch.equal(after["head.weight"][[0, 1, 3]], before["head.weight"][[0, 1, 3]])
    written = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert torch.equal(written["head.weight"], after["head.weight"].half())
    wanted = {key: torch.float16 if value.is_floating_point() else value.dtype for key, value in after.items()}
    assert {key: value.dtype for key, value in written.items()} == wanted, "counts of batches stay whole numbers"
    with pytest.raises(RefusedError, match=r"out/model\.pt holds weights already: .* \(overwrite=True\)"):
        RowFit(gate, ["noise"], [source], [4], NoiseEstimator(), tmp_path / "out" / "model.pt")
    RowFit(gate, ["noise"], [source], [4], NoiseEstimator(), tmp_path / "out" / "model.pt", overwrite=True)
    with pytest.raises(ValueError, match="haze"):
        RowFit(gate, ["haze"], [source], [4], NoiseEstimator(), tmp_path / "model.pt")
