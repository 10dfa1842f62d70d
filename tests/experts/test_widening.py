"""A wider network starts where a narrow one stopped, and its further channels learn."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from monai_sasm.errors import RefusedError
from monai_sasm.experts.unet import ResidualUNet
from monai_sasm.training.checkpoints import starting_from


@pytest.mark.parametrize("neighbours", [0, 2])
def test_a_wider_network_starts_as_the_narrow_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, neighbours: int
) -> None:
    torch.manual_seed(0)
    narrow = ResidualUNet(1, [8, 16, 24], noise_estimator=torch.abs)
    torch.save(narrow.state_dict(), tmp_path / "narrow.pt")
    with caplog.at_level(logging.WARNING):
        wide = starting_from(
            ResidualUNet(1, [12, 16, 40], noise_estimator=torch.abs, neighbours=neighbours),
            tmp_path / "narrow.pt",
            "cpu",
        )
    assert "narrow.pt is of a narrower network" in caplog.text
    slab = torch.rand(2, 2 * neighbours + 1, 20, 28)
    torch.testing.assert_close(wide(slab), narrow(slab[:, neighbours : neighbours + 1]))


def test_what_is_new_learns_from_the_first_step() -> None:
    torch.manual_seed(0)
    narrow, wide = ResidualUNet(1, [8, 16]), ResidualUNet(1, [12, 20])
    wide.load_state_dict(wide.adopted(narrow.state_dict()))
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.1)
    image = torch.rand(4, 1, 16, 16)
    for _ in range(2):  # the first step lets the new channels be heard, the second teaches them what to say
        before = {name: value.clone() for name, value in wide.state_dict().items()}
        optimizer.zero_grad()
        (wide(image) - image / 2).square().mean().backward()
        optimizer.step()
    changed = {name: (value - before[name]).abs() for name, value in wide.state_dict().items()}
    assert changed["encoder.0.0.first.weight"][8:].amax() > 0
    assert changed["tail.weight"][:, 8:].amax() > 0
    assert changed["up.0.weight"][16:, :8].amax() > 0


def test_weights_of_a_wider_or_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(ResidualUNet(1, [8, 16]).state_dict(), tmp_path / "given.pt")
    for other in (ResidualUNet(1, [4, 16]), ResidualUNet(3, [8, 16]), ResidualUNet(1, [8, 16, 24])):
        with pytest.raises(RefusedError, match="do not fit the network: "):
            starting_from(other, tmp_path / "given.pt", "cpu")
