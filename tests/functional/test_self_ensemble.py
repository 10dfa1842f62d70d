"""The self-ensemble: every flip and turn once, undone; what no network changes stays to the last bit."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.functional.self_ensemble import self_ensemble, turned, turned_back
from monai_sasm.restoration.options import Options

IMAGE = torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
SIGMA = IMAGE[:, :1] / 10


def corner(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Adds 1, and the noise, in the corner at the top left."""
    result = image.clone()
    result[..., 0, 0] += 1 + sigma[:, 0, 0, :1]
    return result


def test_all_turns_differ_and_are_undone() -> None:
    views = [turned(IMAGE, number) for number in range(8)]
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8
    for number, view in enumerate(views):
        torch.testing.assert_close(turned_back(view, number), IMAGE, rtol=0, atol=0)


@pytest.mark.parametrize(("count", "share"), [(2, (1 / 2, 1 / 2, 0, 0)), (4, (1 / 4,) * 4), (8, (1 / 4,) * 4)])
def test_it_is_the_mean_over_the_corners(count: int, share: tuple[float, ...]) -> None:
    """Each view adds to the corner of the image that it has at its top left, by the noise that is there."""
    change = self_ensemble(corner, count)(IMAGE, SIGMA) - IMAGE
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    for (row, column), weight in zip(corners, share, strict=True):
        expected = weight * (1 + SIGMA[:, 0, row, column])
        torch.testing.assert_close(change[:, :, row, column], expected[:, None].expand(-1, 3))
    inner = change.clone()
    inner[..., ::5, ::7] = 0
    assert not inner.any()


def test_one_is_the_network_itself() -> None:
    assert self_ensemble(corner, 1) is corner
    with pytest.raises(ValueError, match="one of 1, 2, 4, 8, got 3"):
        self_ensemble(corner, 3)
    with pytest.raises(ValueError, match="one of 1, 2, 4, 8, got 3"):
        Options(self_ensemble=3)


def test_what_is_not_changed_stays_to_the_last_bit() -> None:
    kept = self_ensemble(lambda image, sigma: image.clone(), 8)(IMAGE, SIGMA)
    torch.testing.assert_close(kept, IMAGE, rtol=0, atol=0)


def test_neighbours_turn_with_the_slice() -> None:
    slab = torch.rand(2, 5, 6, 8, generator=torch.Generator().manual_seed(1))
    seen: list[torch.Tensor] = []

    def restore(image: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(image)
        return image[:, 2:3] + image[:, :1]

    result = self_ensemble(restore, 8)(slab, SIGMA)
    torch.testing.assert_close(result, slab[:, 2:3] + slab[:, :1])
    assert [image.shape[-2:] for image in seen] == [(6, 8)] * 4 + [(8, 6)] * 4
