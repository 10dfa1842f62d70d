"""The stack inferer sees every slice once, along the right axis, and tiles leave no trace."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_sasm.functional.tiling import tiles
from monai_sasm.restoration.inferers import SliceInferer


class Recorder(nn.Module):
    """Adds the row index to each image, and remembers the shapes it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        return image + torch.arange(image.shape[-2])[:, None]


@pytest.mark.parametrize(("axis", "plane"), [(0, (6, 7)), (1, (5, 7)), (2, (5, 6))])
def test_slices_are_taken_along_their_axis(axis: int, plane: tuple[int, int]) -> None:
    volume = torch.rand(1, 2, 5, 6, 7)
    network = Recorder()
    result = SliceInferer(chunk=4)(MetaTensor(volume, meta={"slice_axis": torch.tensor([axis])}), network)
    count = 2 * (5, 6, 7)[axis]
    assert network.shapes == [(min(4, count - start), 1, *plane) for start in range(0, count, 4)]
    rows = 1 if axis == 0 else 0  # the first remaining spatial axis
    shape = [1] * 5
    shape[rows + 2] = volume.shape[rows + 2]
    torch.testing.assert_close(result.as_tensor(), volume + torch.arange(volume.shape[rows + 2]).view(shape))
    assert result.meta["slice_axis"] == axis


def test_volumes_without_metadata_are_cut_along_the_last_axis() -> None:
    network = Recorder()
    SliceInferer()(torch.rand(1, 1, 8, 9, 3), network)
    assert network.shapes == [(3, 1, 8, 9)]


def test_grey_photos_become_colour_and_back() -> None:
    network = Recorder()
    result = SliceInferer(channels=3)(torch.zeros(1, 1, 8, 9), network)
    assert network.shapes == [(1, 3, 8, 9)]
    assert result.shape == (1, 1, 8, 9)
    assert result[0, 0, 5, 0] == 5


def test_tiles_equal_the_whole_image() -> None:
    network = nn.Conv2d(1, 1, 5, padding=2, padding_mode="reflect").eval().requires_grad_(False)
    image = torch.rand(1, 1, 200, 300)
    tiled = SliceInferer(tiles=partial(tiles, tile=64, halo=32))(image, network)
    torch.testing.assert_close(tiled, SliceInferer()(image, network))
    cut = SliceInferer(tiles=partial(tiles, tile=64, halo=0))(image, network)
    assert not torch.allclose(cut, tiled), "without a halo the seams must show"


@pytest.mark.parametrize(("shape", "channels"), [((2, 1, 8, 8, 3), 1), ((1, 3, 8, 8, 3), 3), ((8, 8), 1)])
def test_other_shapes_are_refused(shape: tuple[int, ...], channels: int) -> None:
    with pytest.raises(ValueError, match="expected photos"):
        SliceInferer(channels=channels)(torch.zeros(shape), Recorder())


@pytest.mark.parametrize("arguments", [{"channels": 2}, {"chunk": 0}])
def test_arguments_are_checked(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        SliceInferer(**arguments)
