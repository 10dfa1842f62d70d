"""A background of zero: outside a head alone, in the share of images asked for, in the reference as well."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.degradations.degradation import reference
from monai_sasm.degradations.kspace import KspaceNoise
from monai_sasm.degradations.masked_background import MaskedBackground

SIDE = 96


def heads(count: int = 1) -> torch.Tensor:
    """A bright disc with a dark ventricle."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    radius = torch.hypot(y, x)
    return ((radius < 0.7) & (radius > 0.15)).float().expand(count, 1, -1, -1).clone()


def test_only_what_lies_outside_a_head_becomes_zero() -> None:
    clean, model = heads(), MaskedBackground(KspaceNoise((0.05, 0.05)), share=1.0)
    params = model.draw((1, 1, SIDE, SIDE), torch.Generator().manual_seed(0))
    noisy, plain = model.apply(clean, params), KspaceNoise().apply(clean, params.chosen)
    assert float(noisy[..., :10, :10].abs().max()) == 0
    middle = slice(SIDE // 2 - 30, SIDE // 2 + 30)
    rows = torch.arange(SIDE)[middle]
    inside = (rows, torch.full_like(rows, SIDE // 2))
    assert torch.equal(noisy[0, 0][inside], plain[0, 0][inside]), "the ventricle is in the head"
    assert torch.equal(reference(model, clean, params), clean)


def test_the_share_of_images_is_that_asked_for() -> None:
    model = MaskedBackground(KspaceNoise((0.05, 0.05)), share=0.25)
    params = model.draw((400, 1, 2, 2), torch.Generator().manual_seed(0))
    assert float(params.masked.float().mean()) == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("wrong", [{"share": 1.5}, {"share": -0.1}, {"threshold": 0.0}])
def test_wrong_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskedBackground(KspaceNoise(), **wrong)
