"""On the second pass the repaired fault is gone, from image and target; what else was wrong still is."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.training.gate_bank import Example
from monai_sasm.training.second_pass import SecondPassSource
from monai_sasm.types import Modality

CLEAN = torch.full((3, 16, 16), 0.5)
DROP = torch.zeros(1, 16, 16)
DROP[..., :4] = 1
NOISE = torch.zeros(1, 16, 16)
NOISE[:, :8] = 1
DEGRADED = CLEAN - 0.2 * DROP + 0.1 * NOISE


class Given:
    """A source of one example with a drop and, above it and in the upper half, noise."""

    def draw(self, generator: torch.Generator) -> Example:
        return Example(CLEAN, DEGRADED, {"drop": DROP, "noise": NOISE}, Modality.PHOTO, {"drop": 2})


def darker(image: torch.Tensor) -> torch.Tensor:
    """What the expert for the noise does, everywhere."""
    assert image.shape == (1, 3, 16, 16)
    return image - 0.1


def test_the_repaired_fault_is_gone_and_the_other_stays() -> None:
    example = SecondPassSource(Given(), "noise", darker, strength=(1.0, 1.0)).draw(torch.Generator())
    torch.testing.assert_close(example.degraded, CLEAN - 0.2 * DROP)
    assert not example.faults["noise"].any()
    assert torch.equal(example.faults["drop"], DROP)
    assert list(example.faults) == ["drop", "noise"]
    assert torch.equal(example.clean, CLEAN)
    assert example.spread == {"drop": 2}


def test_the_first_pass_leaves_a_little() -> None:
    source = SecondPassSource(Given(), "noise", darker, strength=(0.8, 0.9))
    generator = torch.Generator().manual_seed(0)
    left = torch.stack([source.draw(generator).degraded - (CLEAN - 0.2 * DROP) for _ in range(20)])[..., :8, :]
    assert 0.01 - 1e-6 <= left.min() < 0.0125 < 0.0175 < left.max() <= 0.02 + 1e-6


def test_wrong_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match="strength must be an increasing range"):
        SecondPassSource(Given(), "noise", darker, strength=(0.9, 1.2))
    with pytest.raises(ValueError, match="must have the fault 'blur', got drop, noise"):
        SecondPassSource(Given(), "blur", darker).draw(torch.Generator())
