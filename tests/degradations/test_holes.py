"""Holes have the area and the shapes that were asked for."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.degradations.holes import SHAPES, Holes

SHAPE = (6, 3, 96, 128)


def draw(holes: Holes, seed: int = 0) -> torch.Tensor:
    return holes.draw(SHAPE, torch.Generator().manual_seed(seed)).mask


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("area", [0.05, 0.3])
def test_the_area_is_as_large_as_asked(kind: str, area: float) -> None:
    shares = draw(Holes((area, area), (kind,))).mean((1, 2, 3))
    largest = {"blobs": 0.001, "boxes": 40 * 40, "strokes": 5 * 60 * 16 + 16 * 16}[kind]
    overshoot = largest if kind == "blobs" else largest / (96 * 128)
    assert bool((shares >= area - 1e-3).all())
    assert bool((shares < area + overshoot).all())
    assert bool((shares < 1).all())


def test_masks_are_binary_and_differ_in_a_batch() -> None:
    mask = draw(Holes((0.2, 0.4)))
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(mask[0], mask[1])


def test_boxes_are_filled_rectangles() -> None:
    mask = draw(Holes((0.001, 0.001), ("boxes",)))  # one box is enough
    for image in mask[:, 0]:
        rows, columns = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
        box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert bool(box.all())
        assert max(box.shape) <= 41


def test_strokes_are_as_wide_as_stated() -> None:
    """No pixel of one stroke is farther than half a width from the ground, the joints of its pieces aside."""
    from scipy.ndimage import distance_transform_edt

    mask = torch.nn.functional.pad(draw(Holes((0.001, 0.001), ("strokes",))), (1, 1, 1, 1))
    depths = [distance_transform_edt(image[0].numpy()).max() for image in mask]
    assert min(depths) > 1
    assert max(depths) < 17


def test_holes_are_painted_and_the_rest_is_untouched() -> None:
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3))
    holes = Holes((0.2, 0.2), value=0.25)
    params = holes.draw(SHAPE, torch.Generator().manual_seed(0))
    painted = holes.apply(image, params)
    known = params.known.expand_as(image) > 0
    assert torch.equal(painted[known], image[known])
    assert bool((painted[~known] == 0.25).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
@pytest.mark.parametrize("kind", SHAPES)
def test_tiny_images_can_have_holes(size: tuple[int, int], kind: str) -> None:
    params = Holes((0.3, 0.3), (kind,)).draw((1, 3, *size), torch.Generator().manual_seed(0))
    assert params.mask.shape == (1, 1, *size)
    assert params.mask.any()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="shares in"):
        Holes((0.2, 1.0))
    with pytest.raises(ValueError, match="some of"):
        Holes(shapes=("stars",))
