"""Alignment of slices: what was moved is found, resampled, and put back where it was."""

from __future__ import annotations

import numpy as np
import pytest

from monai_sasm.transforms.slice_alignment import AlignSlicesd, slice_axis_of
from tests.transforms.phantoms import head, oblique, tensor

MOVES = [(0.0, 0.0, 0.0), (3.0, -2.0, 3.0), (-2.5, 2.0, -2.0), (1.0, 3.0, 2.0), (0.0, -3.0, -3.0)]


def restless() -> np.ndarray:
    """Every fifth slice elsewhere in its plane, by a few mm and degrees."""
    volumes = [head(shift=(x, y, 0), degrees=angle) for x, y, angle in MOVES]
    return np.stack([volumes[number % 5][..., number] for number in range(20)], axis=-1)


def roughness(volume: np.ndarray) -> float:
    """Change from slice to slice."""
    return float(np.abs(np.diff(volume, axis=-1)).mean())


def test_slices_are_brought_over_one_another_and_back() -> None:
    moved, still = restless(), head()
    affine = oblique((2, 2, 4))
    step = AlignSlicesd("image")
    data = step({"image": tensor(moved, affine)})
    aligned = data["image"][0].numpy()
    assert roughness(aligned) - roughness(still) < 0.25 * (roughness(moved) - roughness(still))
    back = step.inverse(data)["image"]
    assert back.shape == (1, 40, 44, 20)
    np.testing.assert_array_equal(back.affine.numpy(), affine)
    inside = back[0].numpy()[6:-6, 6:-6]
    assert np.abs(inside - moved[6:-6, 6:-6]).mean() < 4
    assert np.abs(aligned - moved).mean() > 10


def test_a_still_patient_stays_where_he_is() -> None:
    aligned = AlignSlicesd("image", order=1)({"image": tensor(head(), oblique((2, 2, 4)))})["image"][0].numpy()
    assert np.abs(aligned - head()).mean() < 3


def test_a_jump_beyond_belief_is_left_alone() -> None:
    moved = head()
    moved[..., 12] = head(shift=(14.0, 0, 0))[..., 12]
    aligned = AlignSlicesd("image", max_shift=4.0)({"image": tensor(moved, oblique((2, 2, 4)))})["image"][0].numpy()
    assert np.abs(aligned[..., 12] - moved[..., 12]).mean() < 0.3 * np.abs(moved[..., 12] - head()[..., 12]).mean()


def test_the_slice_axis_is_given_told_or_last() -> None:
    image = tensor(head(), np.eye(4))
    assert slice_axis_of(image) == 2
    image.meta["slice_axis"] = 0
    assert slice_axis_of(image) == 0
    assert slice_axis_of(image, 1) == 1
    with pytest.raises(ValueError, match="expected a volume"):
        slice_axis_of(image[..., 0])
