"""Mirrored and shifted images: nothing but that happens to them."""

from __future__ import annotations

import pytest
import torch

from monai_sasm.transforms.augmentation import flip_and_shift


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_every_image_is_a_shifted_crop_of_itself_or_its_mirror() -> None:
    images = torch.rand(32, 3, 12, 12, generator=generator())
    moved = flip_and_shift(images, 2, generator())
    assert moved.shape == images.shape
    found = set()
    for image, result in zip(images, moved, strict=True):
        for mirrored in (False, True):
            source = image.flip(-1) if mirrored else image
            padded = torch.nn.functional.pad(source[None], [2] * 4, mode="reflect")[0]
            found |= {
                (mirrored, top, left)
                for top in range(5)
                for left in range(5)
                if torch.equal(padded[:, top : top + 12, left : left + 12], result)
            }
    assert {entry[0] for entry in found} == {False, True}
    assert {entry[1] for entry in found} == {entry[2] for entry in found} == set(range(5))


def test_no_shift_only_mirrors() -> None:
    images = torch.rand(16, 1, 5, 4, generator=generator())
    moved = flip_and_shift(images, 0, generator())
    same = (moved == images).flatten(1).all(1)
    mirrored = (moved == images.flip(-1)).flatten(1).all(1)
    assert bool((same ^ mirrored).all())
    assert 0 < int(same.sum()) < 16
    assert torch.equal(moved, flip_and_shift(images, 0, generator())), "the same draw, the same images"


def test_a_shift_beyond_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="shift must be"):
        flip_and_shift(torch.zeros(1, 1, 4, 8), 4, generator())
