"""A photo of any kind is written as PNG where its name asks for it: same samples, turned and coloured alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from monai_sasm.io import formats
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory, open_images, save

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def picture() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def exif(turn: int) -> bytes:
    told = Image.Exif()
    told[274] = turn
    return told.tobytes()


def again(source: Path, target: Path) -> tuple[Image.Image, np.ndarray[Any, Any]]:
    (volume,) = open_images(source)
    assert save(volume, target) == [target]
    image = Image.open(target)
    assert image.format == "PNG"
    return image, np.asarray(image)


def test_jpeg_keeps_pixels_turn_profile_xmp_and_resolution(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(source, exif=exif(6), icc_profile=PROFILE, xmp=XMP, dpi=(300, 150))
    image, pixels = again(source, tmp_path / "large.png")
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(source)))
    assert image.getexif()[274] == 6
    assert image.info["icc_profile"] == PROFILE
    assert XMP.decode() in str(image.info["XML:com.adobe.xmp"])
    np.testing.assert_allclose(image.info["dpi"], (300, 150), atol=0.1)


@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_keeps_its_bits_turn_profile_and_resolution(bits: int, tmp_path: Path) -> None:
    source = tmp_path / "a.tif"
    samples = picture().astype(np.uint16) * 257 if bits == 16 else picture()
    tags = [(274, 3, 1, 8, True), (34675, 7, len(PROFILE), PROFILE, True)]
    tifffile.imwrite(source, samples, photometric="rgb", resolution=(100, 50), resolutionunit=3, extratags=tags)
    image, _ = again(source, tmp_path / "a.png")
    (volume,) = open_images(tmp_path / "a.png")  # Pillow reads 16-bit colours as 8
    full = 65535 if bits == 16 else 255
    np.testing.assert_array_equal(np.rint(volume.array * full), np.moveaxis(samples, 2, 0))
    assert volume.source.pixels.values.dtype == samples.dtype
    assert image.getexif()[274] == 8
    assert image.info["icc_profile"] == PROFILE
    np.testing.assert_allclose(image.info["dpi"], (254, 127), atol=0.1)


def test_float_and_inverted_tiff_become_sixteen_and_eight_bits(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 12 * 17, dtype=np.float32).reshape(12, 17)
    tifffile.imwrite(tmp_path / "float.tif", values, photometric="minisblack")
    _, pixels = again(tmp_path / "float.tif", tmp_path / "float.png")
    np.testing.assert_array_equal(pixels, np.rint(values * 65535))
    grey = picture()[..., 0]
    tifffile.imwrite(tmp_path / "white.tif", grey, photometric="miniswhite")
    _, pixels = again(tmp_path / "white.tif", tmp_path / "white.png")
    np.testing.assert_array_equal(pixels, 255 - grey)


def test_colours_are_not_multiplied_by_alpha(tmp_path: Path) -> None:
    alpha = np.full((12, 17, 1), 128, np.uint8)
    alpha[:2] = 0
    straight = picture() // 2
    multiplied = np.rint(straight * (alpha / 255)).astype(np.uint8)
    stored = np.concatenate([multiplied, alpha], 2)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    _, pixels = again(tmp_path / "a.tif", tmp_path / "a.png")
    np.testing.assert_array_equal(pixels[..., 3], alpha[..., 0])
    assert np.abs(pixels[2:, :, :3].astype(int) - straight[2:]).max() <= 1
    assert pixels[:2, :, :3].max() == 0


def test_bmp_keeps_its_resolution(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.bmp", dpi=(72, 36))
    image, pixels = again(tmp_path / "a.bmp", tmp_path / "a.png")
    np.testing.assert_array_equal(pixels, picture())
    np.testing.assert_allclose(image.info["dpi"], (72, 36), atol=0.1)


@pytest.mark.parametrize("kind", ["jpg", "tif", "bmp", "webp"])
def test_every_photo_may_be_png_and_no_volume(kind: str, tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / f"a.{kind}")
    (entry,) = inventory(tmp_path / f"a.{kind}")
    assert place(entry, tmp_path / "b.png") == tmp_path / "b.png"
    with pytest.raises(ValueError, match=r"choose the suffix of its own kind, or \.png"):
        place(entry, tmp_path / "b.nii.gz")
    wrong = "bmp" if kind != "bmp" else "tif"
    with pytest.raises(ValueError, match=r"\.png, got b\." if kind != "webp" else r"as \.png, got b\.bmp"):
        place(entry, tmp_path / f"b.{wrong}")


def place(entry: Entry, target: Path) -> Path:
    return formats.output_path(entry, entry.paths[0], target)


def test_a_command_writes_png(tmp_path: Path, toy_restorer: Any) -> None:
    import monai_sasm

    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif(3))
    assert monai_sasm.restore(tmp_path / "a.jpg", tmp_path / "b.png", device="cpu", expert="toy_photo", strength=0.0)
    buffer = io.BytesIO((tmp_path / "b.png").read_bytes())
    np.testing.assert_array_equal(np.asarray(Image.open(buffer)), np.asarray(Image.open(tmp_path / "a.jpg")))
