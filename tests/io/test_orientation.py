"""Slices are shown as radiologists look at them, whatever order their axes have in the file; photos as EXIF says."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from monai_sasm.io.orientation import orientation_of
from monai_sasm.io.photo.exif import orientation_in
from monai_sasm.io.photo.photo import read
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


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_photos_are_shown_as_viewers_show_them(tmp_path: Path, name: str, turn: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    exif = Image.Exif()
    exif[274] = turn
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(pixels).save(tmp_path / name, exif=exif, **options)
    photo = read(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        expected = np.moveaxis(np.asarray(ImageOps.exif_transpose(image)), -1, 0)
    found = orientation_of(photo)
    np.testing.assert_array_equal(np.rint(255 * found.show(photo.array)), expected)
    np.testing.assert_array_equal(found.store(found.show(photo.array)), photo.array)


@pytest.mark.parametrize(
    "block", [b"", b"Exif", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0"]
)
def test_what_exif_does_not_say_rightly_turns_nothing(block: bytes) -> None:
    assert orientation_in(block) == 1
