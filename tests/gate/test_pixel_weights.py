"""Weights of pixels that are worked out part by part: the same as all at once, and what is told of them."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.functional.tiling import cut
from monai_sasm.gate.occupied import confine, occupied
from monai_sasm.gate.pixel_weights import PixelWeights
from monai_sasm.gate.routing import enlarge
from monai_sasm.types import Modality


@pytest.mark.parametrize("size", [(1700, 200), (64, 64), (61, 83), (1, 5)])
@pytest.mark.parametrize("modality", [Modality.PHOTO, Modality.MR, Modality.CT])
def test_any_part_is_that_of_the_whole_to_the_last_bit(
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
    assert torch.equal(weights.whole(), whole)
    assert torch.equal(torch.cat(list(weights.bands()), 2), whole)
    corner = slice(0, min(3, size[0])), slice(0, 4)
    for where in (corner, (slice(size[0] // 3, size[0]), slice(size[1] // 2, size[1]))):
        assert torch.equal(weights.part(where), cut(whole, where))
    torch.testing.assert_close(weights.mean(), whole.mean((2, 3)))
    assert weights.all_identity(0.9) == [bool(whole[:, 0].min() > 0.9)]


def maps(*shares: float) -> torch.Tensor:
    """Weights ``(1, 3, 10, 10)``: two experts, each alone on its share of the image, the identity on the rest."""
    weights = torch.zeros(1, 3, 100)
    start = 0
    for index, share in enumerate(shares, start=1):
        end = start + round(100 * share)
        weights[:, index, start:end] = 1
        start = end
    weights[:, 0, start:] = 1
    return weights.view(1, 3, 10, 10)


def of(weights: torch.Tensor) -> PixelWeights:
    return PixelWeights.of(weights)


def confirmed(weights: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return of(weights).confirmed(known).whole()


def test_a_fault_is_seen_where_it_outweighs_the_others() -> None:
    assert of(maps(0.5, 0.02)).present().tolist() == [[True, True, True]]
    assert of(maps(1.0, 0.0)).present().tolist() == [[False, True, False]]
    assert of(0.5 * maps(1.0, 0.0) + 0.5 * maps(0.0, 0.0)).present().tolist() == [[False, False, False]]


def test_on_a_later_pass_a_known_fault_acts_and_a_new_one_has_to_show_on_much_of_the_image() -> None:
    known = torch.tensor([[True, True, False]])
    assert torch.equal(confirmed(maps(0.1, 0.5), known), maps(0.1, 0.5))
    assert torch.equal(confirmed(maps(0.1, 0.3), known)[:, 1], maps(0.1, 0.3)[:, 1])
    held_back = confirmed(maps(0.1, 0.3), known)
    assert not held_back[:, 2].any()
    torch.testing.assert_close(held_back.sum(1), torch.ones(1, 10, 10))


def test_each_image_of_a_batch_is_judged_by_itself() -> None:
    batch = torch.cat([maps(0.0, 0.6), maps(0.0, 0.1)])
    known = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.equal(confirmed(batch, known)[0], batch[0])
    assert torch.equal(confirmed(batch, known)[1], maps(0.0, 0.0)[0])
