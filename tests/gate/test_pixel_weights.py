"""Weights of pixels that are worked out part by part: the same as all at once, and what is told of them."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.functional.tiling import cut
from monai_sasm.gate.occupied import confine, occupied
from monai_sasm.gate.pixel_weights import Part, PixelWeights
from monai_sasm.gate.routing import enlarge
from monai_sasm.types import Modality
from tests.weight_maps import maps


@pytest.mark.parametrize("size", [(1700, 200), (64, 64), (61, 83), (1, 5)])
@pytest.mark.parametrize("modality", [Modality.PHOTO, Modality.MR, Modality.CT])
def test_any_part_is_that_of_the_whole_to_rounding(
    size: tuple[int, int], modality: Modality, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_sasm.functional.tiling.BAND", 2**16)
    random = torch.Generator().manual_seed(0)
    channels = 3 if modality is Modality.PHOTO else 1
    image = torch.rand(1, channels, *size, generator=random)
    image[..., : size[0] // 2, : size[1] // 2] = 0.25  # nothing is there
    blocks = torch.rand(1, 4, *(-(-side // 8) for side in size), generator=random).softmax(1)
    whole = confine(enlarge(blocks, size, 0.05), occupied(image, modality))
    weights = PixelWeights.of_blocks(blocks, image, modality, 0.05)
    assert weights.shape == whole.shape
    torch.testing.assert_close(weights.whole(), whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat(list(weights.bands()), 2), whole, rtol=0, atol=1e-6)
    corner = slice(0, min(3, size[0])), slice(0, 4)
    for where in (corner, (slice(size[0] // 3, size[0]), slice(size[1] // 2, size[1]))):
        torch.testing.assert_close(weights.part(where), cut(whole, where), rtol=0, atol=1e-6)
    torch.testing.assert_close(weights.mean(), whole.mean((2, 3)))
    assert weights.all_identity(0.9) == [bool(whole[:, 0].min() > 0.9)]


def of(weights: torch.Tensor) -> PixelWeights:
    return PixelWeights.of(weights)


def test_a_fault_is_seen_where_it_outweighs_the_others() -> None:
    assert of(maps(0.5, 0.02)).present().tolist() == [[True, True, True]]
    assert of(maps(1.0, 0.0)).present().tolist() == [[False, True, False]]
    assert of(0.5 * maps(1.0, 0.0) + 0.5 * maps(0.0, 0.0)).present().tolist() == [[False, False, False]]


def test_the_weights_of_a_small_image_are_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    given = torch.rand(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))

    def part(where: Part) -> torch.Tensor:
        asked.append(where)
        return cut(given, where)

    weights = PixelWeights((1, 3, 40, 24), part)
    torch.testing.assert_close(weights.mean(), given.mean((2, 3)))
    assert weights.present().shape == (1, 3)
    assert torch.equal(weights.whole(), given)
    assert len(asked) == 1
    monkeypatch.setattr("monai_sasm.functional.tiling.BAND", 24 * 16)  # a large one is not kept
    torch.testing.assert_close(weights.mean(), given.mean((2, 3)))
    assert len(asked) > 2
