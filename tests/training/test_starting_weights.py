"""Fine-tuning starts from given weights, training from random ones."""

from __future__ import annotations

from pathlib import Path

import torch

from monai_sasm.training.checkpoints import starting_from


def test_weights_are_loaded_when_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, fresh = torch.nn.Conv2d(1, 1, 3), torch.nn.Conv2d(1, 1, 3)
    torch.save({key: value.half() for key, value in trained.state_dict().items()}, tmp_path / "model.pt")
    before = fresh.weight.clone()
    assert torch.equal(starting_from(fresh, "", "cpu").weight, before)
    filled = starting_from(fresh, tmp_path / "model.pt", "cpu")
    assert filled.weight.dtype == torch.float32
    torch.testing.assert_close(filled.weight, trained.weight, atol=1e-3, rtol=1e-3)
