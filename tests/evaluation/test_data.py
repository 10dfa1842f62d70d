"""The package's readers give protocols the pixels that plain libraries read, to the last bit."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from monai_sasm.evaluation.data import ct_pairs, ct_slice, photo, scaled_slices, slices
from monai_sasm.types import Modality
from tests.data import shared


@pytest.mark.parametrize("kind", ["full", "quarter"])
def test_dicom_slices_are_in_hounsfield_units_as_displayed(kind: str) -> None:
    for path in sorted(shared(f"ct_ldct_pairs/L096_dicom/{kind}").iterdir())[:3]:
        dataset = pydicom.dcmread(path, force=True)
        expected = dataset.pixel_array.astype(np.float32) * float(dataset.RescaleSlope) + float(
            dataset.RescaleIntercept
        )
        image, spacing = ct_slice(path)
        np.testing.assert_array_equal(image, expected[None])
        assert (image.dtype, spacing) == (np.float32, float(dataset.PixelSpacing[0]))


@pytest.mark.parametrize(
    ("file", "modality"),
    [
        ("ct_ldct_pairs/L192_nifti/quarter/L192_B30f_i078.nii.gz", Modality.CT),
        ("mri/ms_patient04/study1_FLAIR.nii.gz", Modality.MR),
        ("seg_hippocampus/images/hippocampus_260.nii.gz", Modality.MR),
    ],
)
def test_nifti_slices_are_rows_first(file: str, modality: Modality) -> None:
    path = shared(file)
    expected = np.asarray(nibabel.load(path).dataobj, np.float32).transpose(2, 1, 0)
    stack, volume = slices(path, modality)
    np.testing.assert_array_equal(stack, expected)
    assert volume.slice_axis == 2


def test_scaled_slices_have_a_white_of_one() -> None:
    scaled, volume = scaled_slices(shared("mri/ms_patient04/study1_FLAIR.nii.gz"))
    foreground = scaled[volume.array[0].transpose(2, 1, 0) > volume.array.mean()]
    assert np.percentile(foreground, 99.5) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "file",
    [
        "natural/bsds500/val/101085.jpg",
        "natural/set12/01.png",
        "raindrop/pairs/data/0_rain.png",
        "inpainting_masks/000000.png",
    ],
)
def test_photos_are_their_pixels(file: str) -> None:
    path = shared(file)
    with Image.open(path) as opened:
        pixels = np.asarray(opened if opened.mode == "L" else opened.convert("RGB"))
    expected = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    np.testing.assert_array_equal(photo(path), np.float32(expected) / np.float32(255))


def test_pairs_are_named_by_their_kernel() -> None:
    (pair,) = ct_pairs(shared("ct_ldct_pairs/L192_nifti"), names=("L192_B30f_i078",))
    assert (pair.kernel, pair.full.shape) == ("B30f", pair.quarter.shape)
    assert [path.parent.name for path in pair.paths] == ["full", "quarter"]
    assert pair.spacing == pytest.approx(0.703125)
