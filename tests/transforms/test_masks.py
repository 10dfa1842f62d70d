"""Masks are found by the name of their photo, read in the polarity stated, and pictures show what was missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from monai_sasm.errors import RefusedError
from monai_sasm.transforms.comparisons import SaveComparisond
from monai_sasm.transforms.masks import LoadMaskd, with_masks
from monai_sasm.transforms.volumes import LoadVolumed


def mask(path: Path, height: int = 6, width: int = 8) -> Path:
    """Black left half, white right half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((height, width), np.uint8)
    picture[:, width // 2 :] = 255
    Image.fromarray(picture).save(path)
    return path


def test_each_photo_gets_the_mask_of_its_name(tmp_path: Path) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    items = [{"image": str(photos / name)} for name in ("a.jpg", "deep/b.png")]
    photos.mkdir()
    expected = [mask(masks / "a.png"), mask(masks / "deep" / "b.bmp")]
    found = with_masks(items, photos, masks)
    assert [item["known"] for item in found] == [str(path) for path in expected]
    assert [item["image"] for item in found] == [item["image"] for item in items]


def test_one_photo_may_have_one_mask_of_any_name(tmp_path: Path) -> None:
    only = mask(tmp_path / "hole.png")
    assert with_masks([{"image": str(tmp_path / "a.jpg")}], tmp_path / "a.jpg", only)[0]["known"] == str(only)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.jpg has no mask: .*a\.png is missing"):
        with_masks([{"image": str(tmp_path / "a.jpg")}], tmp_path, tmp_path)


@pytest.mark.parametrize(("known", "left"), [("white", 0.0), ("black", 1.0)])
def test_polarity_says_what_is_known(tmp_path: Path, known: str, left: float) -> None:
    data = {"image": torch.zeros(3, 6, 8), "known": str(mask(tmp_path / "a.png"))}
    loaded = LoadMaskd("known", known=known)(data)["known"]
    assert loaded.shape == (1, 6, 8)
    assert bool((loaded[..., :4] == left).all())
    assert bool((loaded[..., 4:] == 1 - left).all())


def test_a_mask_of_another_size_or_polarity_is_refused(tmp_path: Path) -> None:
    data = {"image": torch.zeros(3, 6, 9), "known": str(mask(tmp_path / "a.png"))}
    with pytest.raises(RefusedError, match="size of its photo, 9 x 6, got 8 x 6; scale the mask"):
        LoadMaskd("known")(data)
    with pytest.raises(RefusedError, match="size of its photo, 6 x 8, got 8 x 6; turn the mask by a quarter"):
        LoadMaskd("known")(data | {"image": torch.zeros(3, 8, 6)})
    with pytest.raises(ValueError, match="colour of known pixels"):
        LoadMaskd("known", known="grey")


def turned(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("own", [1, 6])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_lies_over_the_photo_as_viewers_show_it(tmp_path: Path, orientation: int, own: int) -> None:
    photo = turned(tmp_path / "a.jpg", np.full((6, 8, 3), 90, np.uint8), orientation)
    expected = np.ones((6, 8), np.uint8)
    expected[1, 2:5] = 0  # the hole, in stored order
    told = turned(tmp_path / "told.png", 255 * expected, orientation)
    with Image.open(told) as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    painted = turned(tmp_path / "a.png", np.rot90(shown) if own == 6 else shown, own)
    data = LoadVolumed("image", "PHOTO")({"image": str(photo)})
    known = LoadMaskd("known")({**data, "known": str(painted)})["known"]
    np.testing.assert_array_equal(known[0].numpy(), expected)


def test_pictures_stand_upright(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[0, 0] = 255  # at the top left; shown, at the top right
    data = LoadVolumed("image", "PHOTO")({"image": str(turned(tmp_path / "a.png", pixels, 6))})
    SaveComparisond("pred", str(tmp_path / "out"), str(tmp_path / "a.png"))({**data, "pred": data["image"]})
    picture = np.asarray(Image.open(tmp_path / "out" / "pictures" / "a.png"))[..., 0]
    assert picture.shape == (8, 12)
    assert np.argwhere(picture).tolist() == [[0, 5], [0, 11]]


def test_pictures_show_input_and_result(tmp_path: Path) -> None:
    source = tmp_path / "in" / "deep" / "a.jpg"
    data = {
        "image": torch.zeros(1, 2, 3),
        "pred": torch.ones(1, 4, 6),
        "known": torch.tensor([[[1.0, 1.0, 0.0]] * 2]),
        "image_source": str(source),
    }
    source.parent.mkdir(parents=True)
    SaveComparisond("pred", output_dir=str(tmp_path / "out"), input_dir=str(tmp_path / "in"))(data)
    picture = np.asarray(Image.open(tmp_path / "out" / "pictures" / "deep" / "a.png"))
    assert picture.shape == (4, 12, 3)
    assert picture[0, :, 0].tolist() == [0, 0, 0, 0, 128, 128, 255, 255, 255, 255, 255, 255]
