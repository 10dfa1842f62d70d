"""MR volumes as stacks: the slices across each axis, and the affine of a stack."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_sasm.evaluation.data import seed_of
from monai_sasm.evaluation.restoring import as_file_order
from monai_sasm.evaluation.stacks import scaled_volume, stack_across, stack_affine


def test_slices_across_each_axis_lie_in_space_as_they_did(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(100, 900, (6, 8, 10)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.5, 1.0, 4.0, 1.0])), tmp_path / "a.nii.gz")
    scaled, sides, axis = scaled_volume(tmp_path / "a.nii.gz")
    assert (scaled.shape, sides, axis) == ((6, 8, 10), (0.5, 1.0, 4.0), 2)
    expected = {0: (0.5, 1.0, 4.0), 1: (1.0, 0.5, 4.0), 2: (4.0, 0.5, 1.0)}
    for number, lengths in expected.items():
        slices, found = stack_across(scaled, sides, number)
        np.testing.assert_array_equal(slices, np.moveaxis(scaled, number, 0))
        assert found == lengths
        affine = stack_affine(found)
        np.testing.assert_array_equal(affine, np.diag([lengths[2], lengths[1], lengths[0], 1.0]))
        spans = np.abs(np.diag(affine)[:3]) * as_file_order(slices).shape[1:]
        assert sorted(spans) == pytest.approx([3.0, 8.0, 40.0])


def test_a_seed_follows_from_the_names() -> None:
    assert seed_of("sub-61", "3 %") == 4014141027
    assert len({seed_of(name, level) for name in ("a", "b") for level in (0, 1, "a|0")}) == 6
