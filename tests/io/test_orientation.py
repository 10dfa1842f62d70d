"""Slices are shown as radiologists look at them, whatever order their axes have in the file."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from monai_sasm.io.orientation import orientation_of
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

SIDES = (4, 5, 6)


@pytest.mark.parametrize("order", permutations(range(3)), ids=str)
@pytest.mark.parametrize("signs", product((1.0, -1.0), repeat=3), ids=str)
def test_the_patient_stands_right_side_left_and_head_or_front_up(
    order: tuple[int, ...], signs: tuple[float, ...]
) -> None:
    affine = np.zeros((4, 4))
    for axis, (anatomical, sign) in enumerate(zip(order, signs, strict=True)):
        affine[anatomical, axis] = sign * (1.0 + anatomical)
    affine[3, 3] = 1
    for slice_axis in range(3):
        rng = np.random.default_rng(0)
        array = rng.normal(size=(1, *SIDES)).astype(np.float32)
        volume = Volume(array, Modality.MR, affine, slice_axis)
        found = orientation_of(volume)
        index = np.stack(np.meshgrid(*map(np.arange, SIDES), indexing="ij"))
        place = np.einsum("ij,jklm->iklm", affine[:3, :3], index).astype(np.float32)  # RAS mm of every voxel
        shown = [found.show(next(Volume(one[None], Modality.MR, affine, slice_axis).each_slice()))[0] for one in place]
        across, down = {0: (1, 2), 1: (0, 2), 2: (0, 1)}[order[slice_axis]]
        assert (np.diff(shown[across], axis=1) < 0).all(), "to the right: the patient's left, or back"
        assert (np.diff(shown[down], axis=0) < 0).all(), "down: feet, or back"
        assert found.spacing == (1.0 + down, 1.0 + across)
        assert "".join(found.ends) == {0: "RL", 1: "AP"}[across] + {1: "AP", 2: "SI"}[down]


def test_photos_are_shown_as_they_are() -> None:
    photo = Volume(np.zeros((3, 4, 5), np.float32), Modality.PHOTO)
    assert orientation_of(photo).ends == ()
    assert orientation_of(photo).show(photo.array).shape == (3, 4, 5)
