"""Arrays of one's own: in and out again with values, geometry and bit depth; what is missing is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from monai_sasm.errors import RefusedError
from monai_sasm.io.formats import open_images, save
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

AFFINE = np.array([[-0.8, 0, 0, 90], [0, 0.8, 0, -120], [0, 0, 2.5, -70], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.uint8, np.float32])
def test_a_volume_comes_back_as_it_was_given(dtype: type, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 200, (6, 5, 4)).astype(dtype)
    volume = Volume.from_array(array, AFFINE, "MR", name="my brain/1")
    assert (volume.array.dtype, volume.array.shape, volume.slice_axis) == (np.float32, (1, 6, 5, 4), 2)
    assert (volume.name, volume.modality, volume.geometry) == ("my_brain_1", Modality.MR, "regular")
    image, sidecar = save(volume, tmp_path / "out")
    assert (image.name, sidecar.name) == ("my_brain_1.nii.gz", "my_brain_1.json")
    loaded = nibabel.load(image)
    np.testing.assert_array_equal(loaded.get_fdata(), array)
    np.testing.assert_allclose(loaded.affine, AFFINE, atol=1e-5)
    again = next(open_images(image, "MR"))
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.slice_axis == volume.slice_axis


def test_axes_keep_their_meaning(tmp_path: Path) -> None:
    slices_first = AFFINE[:, [2, 1, 0, 3]]
    array = np.arange(2 * 4 * 5 * 6, dtype=np.float32).reshape(2, 4, 5, 6)
    volume = Volume.from_array(array, slices_first, Modality.CT)
    assert (volume.array.shape, volume.slice_axis) == ((2, 4, 5, 6), 0)
    assert volume.slices_shape == (8, 1, 5, 6)
    assert Volume.from_array(array[0], AFFINE, "CT", slice_axis=1).slice_axis == 1
    assert Volume.from_array(array[0], np.eye(4), "CT").slice_axis == 2, "of equal sides the last, as in NIfTI"
    image, _ = save(volume, tmp_path / "series.nii")
    np.testing.assert_array_equal(nibabel.load(image).get_fdata(), np.moveaxis(array, 0, 3))
    flat = Volume.from_array(array[0, 0], AFFINE, "CT")
    assert (flat.slice_axis, flat.geometry) == (None, "single")
    image, _ = save(flat, tmp_path / "flat.nii.gz")
    np.testing.assert_array_equal(nibabel.load(image).get_fdata()[..., 0], array[0, 0])


@pytest.mark.parametrize("shape", [(7, 9), (3, 7, 9)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_a_photo_comes_back_with_its_bits(shape: tuple[int, ...], dtype: type, tmp_path: Path) -> None:
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    array = (np.random.default_rng(0).random(shape) * white).astype(dtype)
    volume = Volume.from_array(array, modality="PHOTO", name="window")
    np.testing.assert_allclose(volume.array.reshape(shape), array / white, atol=1e-6)
    (file,) = save(volume, tmp_path)
    assert file.name == "window.png"
    again = next(open_images(file))
    bits = 8 if dtype is np.uint8 else 16
    assert again.source.pixels.values.dtype == np.dtype(f"u{bits // 8}")
    np.testing.assert_allclose(again.array, volume.array, atol=0 if white > 1 else 1 / 65535)
    if bits == 8:
        with Image.open(file) as image:
            pixels = np.asarray(image)
        np.testing.assert_array_equal(pixels, array if array.ndim == 2 else array.transpose(1, 2, 0))


def test_an_enlarged_photo_can_be_saved(tmp_path: Path) -> None:
    volume = Volume.from_array(np.zeros((4, 5), np.uint8), modality="PHOTO")
    (file,) = save(volume.enlarged(np.ones((1, 8, 10), np.float32)), tmp_path / "large.png")
    assert next(open_images(file)).array.shape == (1, 8, 10)


@pytest.mark.parametrize(
    ("array", "affine", "options", "reason"),
    [
        (np.zeros((4, 4)), None, {}, "say what made the image: modality='CT', 'MR', 'PHOTO'"),
        (np.zeros((4, 4)), None, {"modality": "XX"}, "XX"),
        (np.zeros((4, 4, 4)), None, {"modality": "MR"}, "needs its affine"),
        (np.zeros((4, 4)), None, {"modality": "CT"}, "needs its affine"),
        (np.zeros((4, 4)), np.eye(3), {"modality": "CT"}, r"\(4, 4\) matrix that has an inverse, got \(3, 3\)"),
        (np.zeros((4, 4)), np.zeros((4, 4)), {"modality": "CT"}, "has an inverse"),
        (np.zeros((2, 2, 4, 4, 4)), np.eye(4), {"modality": "CT"}, r"\(T, i, j, k\), got \(2, 2, 4, 4, 4\)"),
        (np.zeros((4, 4, 4)), np.eye(4), {"modality": "CT", "slice_axis": 3}, "slice_axis"),
        (np.zeros((4, 4), complex), np.eye(4), {"modality": "MR"}, r"np.abs\(array\)"),
        (np.full((4, 4), np.nan), np.eye(4), {"modality": "MR"}, "finite"),
        (np.zeros((0, 4)), np.eye(4), {"modality": "MR"}, "needs pixels"),
        (np.zeros((4, 4)), np.eye(4), {"modality": "PHOTO"}, "no place in space"),
        (np.zeros((9, 8, 3), np.uint8), None, {"modality": "PHOTO"}, r"array.transpose\(2, 0, 1\)"),
        (np.zeros((4, 9, 8), np.uint8), None, {"modality": "PHOTO"}, r"\(3, H, W\), got \(4, 9, 8\)"),
        (np.zeros((2, 3, 9, 8), np.uint8), None, {"modality": "PHOTO"}, "one photo at a time"),
        (np.full((4, 4), 200.0), None, {"modality": "PHOTO"}, r"lies in \[0, 1\], got \[200, 200\]"),
        (np.zeros((4, 4), np.int32), None, {"modality": "PHOTO"}, "uint8 or uint16"),
        (np.zeros((4, 4), bool), None, {"modality": "PHOTO"}, "real numbers"),
    ],
)
def test_what_is_missing_is_asked_for(array: np.ndarray, affine: np.ndarray | None, options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Volume.from_array(array, affine, **options)


@pytest.mark.parametrize(
    ("array", "affine", "modality", "reason"),
    [
        (np.linspace(0, 1, 4096, dtype=np.float32).reshape(16, 16, 16), AFFINE, "CT", "force_modality=True"),
        (np.full((4, 4, 4), np.nan), AFFINE, "MR", "all finite"),
        (np.zeros((4, 4, 4), complex), AFFINE, "MR", "real numbers"),
        (np.full((4, 4, 4), -1e39), AFFINE, "MR", "float32, got numbers beyond"),
        (np.full((4, 4), 1e300), None, "PHOTO", "float32, got numbers beyond"),
        (np.ma.masked_less(np.arange(64.0).reshape(4, 4, 4), 5), AFFINE, "MR", r"masked pixels; fill them by .filled"),
        (np.ma.masked_equal(np.zeros((4, 4), np.uint8), 0), None, "PHOTO", "masked pixels"),
        (np.full((4, 4), 200.0), None, "PHOTO", "divide by its white"),
    ],
)
def test_pixels_are_refused_as_the_manual_says(array: np.ndarray, affine: Any, modality: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        Volume.from_array(array, affine, modality)


def test_a_scan_without_a_place_is_told_to_be_given_one(tmp_path: Path) -> None:
    scan = Volume(np.zeros((1, 4, 4, 4), np.float32), Modality.CT, slice_axis=2)
    with pytest.raises(ValueError, match=r"without a place in space; give it by affine=, \(4, 4\)"):
        save(scan, tmp_path / "scan.nii.gz")


def test_an_image_goes_only_where_it_fits(tmp_path: Path) -> None:
    scan = Volume.from_array(np.zeros((4, 4, 4)), AFFINE, "MR")
    photo = Volume.from_array(np.zeros((4, 4)), modality="PHOTO")
    with pytest.raises(ValueError, match="only photos are written as"):
        save(scan, tmp_path / "scan.png")
    with pytest.raises(ValueError, match="affine"):
        save(photo, tmp_path / "photo.nii.gz")
    with pytest.raises(ValueError, match="written as"):
        save(photo, tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match="from DICOM"):
        save(scan, tmp_path / "scan.dcm")
    assert not list(tmp_path.iterdir())


def test_a_masked_array_without_masked_pixels_is_an_array() -> None:
    volume = Volume.from_array(np.ma.masked_array(np.arange(64.0).reshape(4, 4, 4)), AFFINE, "MR")
    assert not np.ma.isMaskedArray(volume.array)
    assert volume.array.max() == 63
