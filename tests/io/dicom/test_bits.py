"""Bits above Bits Stored: padding and two's complement come back, what nothing explains is refused."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.pixels import StoredPixels, encode, read_stored
from monai_sasm.io.dicom.saving import set_pixels
from tests.io.dicom.dicom_cases import PADDING, SIZE, ct_slice, file_meta_of, save

LOSSLESS_JPEG, JPEG_LS = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"
ROW, COLUMN = np.mgrid[:SIZE, :SIZE]
SIGNED = (20 * ROW + 9 * COLUMN - 900).astype(np.int16)
UNSIGNED = (SIGNED + 1000).astype(np.uint16)


def read(
    folder: Path, pixels: NDArray[np.generic], coded: tuple[str, bytes] | None = None, **changes: object
) -> StoredPixels:
    """What is read of 12 bits, uncompressed or ``coded``: transfer syntax and frame."""
    changes = {"PixelPaddingValue": None, "PixelRepresentation": int(pixels.dtype.kind == "i"), **changes}
    dataset = ct_slice(0, BitsStored=12, HighBit=11, **changes)
    dataset.file_meta = file_meta_of(dataset)
    dataset.PixelData = pixels.tobytes()
    if coded is not None:
        dataset.file_meta.TransferSyntaxUID, dataset.PixelData = coded[0], encapsulate([coded[1]])
    return read_stored(save(dataset, folder / "a"))[1]


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("image", "value"), [(UNSIGNED, 63536), (SIGNED, -3000)], ids=["unsigned", "signed"])
def test_padding_beyond_bits_stored_stays(
    tmp_path: Path, image: NDArray[np.generic], value: int, declared: bool
) -> None:
    """-2000 as an unsigned number is the padding of many CT scanners; cut to 12 bits it would be bone."""
    pixels = image.copy()
    pixels[:7] = value
    stored = read(tmp_path, pixels, **({"PixelPaddingValue": value} if declared else {}))
    np.testing.assert_array_equal(stored.values[0], pixels)
    np.testing.assert_array_equal(stored.padding[0], pixels == value)


def test_a_sign_within_bits_stored_is_taken(tmp_path: Path) -> None:
    within = (SIGNED & 0xFFF).astype(np.int16)
    np.testing.assert_array_equal(read(tmp_path, within).values[0], SIGNED)


@pytest.mark.parametrize("declared", [-2000, 2096, None])
@pytest.mark.parametrize("image", [SIGNED, (ROW * COLUMN % 97).astype(np.int16)], ids=["below 0", "from 0"])
@pytest.mark.parametrize("coded", [False, True])
def test_the_sign_of_padding_may_end_at_bits_stored(
    tmp_path: Path, image: NDArray[np.int16], declared: int | None, coded: bool
) -> None:
    """-2000 is 2096 in 12 bits: bone, where the image begins at -1024 HU."""
    wanted = image.copy()
    wanted[:7] = -2000
    pixels = wanted.copy()
    pixels[:7] = 2096
    frame = (JPEG_LS, bytes(imagecodecs.jpegls_encode((pixels & 0xFFF).astype(np.uint16)))) if coded else None
    stored = read(tmp_path, pixels, frame, PixelPaddingValue=declared)
    np.testing.assert_array_equal(stored.values[0], wanted)
    if declared is not None or not coded:
        np.testing.assert_array_equal(stored.padding[0], wanted == -2000)


def test_padding_is_written_with_the_sign_of_its_pixels(tmp_path: Path) -> None:
    pixels = SIGNED.copy()
    pixels[:7] = 2096
    dataset = ct_slice(0, BitsStored=12, HighBit=11, PixelData=pixels.tobytes())
    dataset.add_new("PixelPaddingValue", "US", 2096)
    whole, stored = read_stored(save(dataset, tmp_path / "a"))
    set_pixels(whole, stored.values[0])
    back, again = read_stored(save(whole, tmp_path / "b"))
    assert back.PixelPaddingValue == -2000
    np.testing.assert_array_equal(back.pixel_array == -2000, stored.padding[0])
    np.testing.assert_array_equal(again.values, stored.values)


def test_padding_below_other_bits_stays(tmp_path: Path) -> None:
    """Two's complement in 12 bits and drawings in the bits above: the padding is known once these are gone."""
    pixels = SIGNED.copy()
    pixels[:7] = PADDING
    stored = read(tmp_path / "sign", (pixels & 0xFFF).astype(np.int16), PixelPaddingValue=PADDING)
    np.testing.assert_array_equal(stored.values[0], pixels)
    np.testing.assert_array_equal(stored.padding[0], pixels == PADDING)
    np.testing.assert_array_equal(encode(np.full(pixels.shape, 30.0, np.float32), stored, 0, 1.0, 0.0)[0][:7], PADDING)
    pixels = np.where(UNSIGNED > 4000, 4000, UNSIGNED + 1).astype(np.uint16)
    pixels[:7] = 0
    drawn = pixels.copy()
    drawn[3:12, 10:20] |= 0x8000
    dataset = ct_slice(0, BitsStored=12, HighBit=11, PixelPaddingValue=0, PixelRepresentation=0)
    dataset.add_new((0x6000, 0x0010), "US", SIZE)
    dataset.add_new((0x6000, 0x0100), "US", 16)
    dataset.PixelData = drawn.tobytes()
    _, stored = read_stored(save(dataset, tmp_path / "overlay"))
    np.testing.assert_array_equal(stored.values[0], pixels)
    np.testing.assert_array_equal(stored.padding[0], pixels == 0)


def test_values_that_a_wrong_header_would_turn_into_others_are_refused(tmp_path: Path) -> None:
    beyond = (UNSIGNED + 1000).astype(np.int16)  # smooth up to 3781, which 12 bits with a sign do not hold
    with pytest.raises(RefusedError, match="do not fit into 12 Bits Stored"):
        read(tmp_path, beyond)
    with pytest.raises(RefusedError, match="do not fit into 12 Bits Stored"):
        read(tmp_path, np.where(UNSIGNED > 500, UNSIGNED | 0xF000, UNSIGNED).astype(np.uint16))


@pytest.mark.parametrize("syntax", [LOSSLESS_JPEG, JPEG_LS], ids=["JPEG", "JPEG-LS"])
def test_codestreams_know_no_sign(tmp_path: Path, syntax: str) -> None:
    within = (SIGNED & 0xFFF).astype(np.uint16)
    if syntax == JPEG_LS:
        coded = imagecodecs.jpegls_encode(within)
    else:
        coded = imagecodecs.ljpeg_encode(within, bitspersample=12)
    np.testing.assert_array_equal(read(tmp_path, SIGNED, (syntax, bytes(coded))).values[0], SIGNED)


def test_padding_within_the_range_of_tissue_is_where_it_fills_regions(tmp_path: Path) -> None:
    """0 HU is water in signed data; some writers declare it as padding. What is outside of the circle is padding."""
    circle = (ROW - 31.5) ** 2 + (COLUMN - 31.5) ** 2 > 31.9**2  # with slivers of one pixel at the sides
    pixels = np.where(circle, 0, SIGNED | 1).astype(np.int16)
    pixels[[20, 30, 31, 40], [30, 30, 30, 12]] = 0
    stored = read(tmp_path / "both", pixels, PixelPaddingValue=0, RescaleIntercept="0")
    np.testing.assert_array_equal(stored.padding[0], circle)
    assert stored.scattered.tolist() == [4]
    inside = np.where(SIGNED == 1, 0, SIGNED).astype(np.int16)
    alone = read(tmp_path / "alone", inside, PixelPaddingValue=0, RescaleIntercept="0")
    assert not alone.padding.any()
    assert alone.scattered.tolist() == [(inside == 0).sum()]
    darkest = read(tmp_path / "darkest", np.where(UNSIGNED < 300, 0, UNSIGNED).astype(np.uint16), PixelPaddingValue=0)
    np.testing.assert_array_equal(darkest.padding[0], UNSIGNED < 300)
    assert darkest.scattered.tolist() == [0]


def test_padding_that_lossy_compression_blurred_is_no_tissue(tmp_path: Path) -> None:
    pixels = SIGNED.copy()
    pixels[:9] = -2000 + np.random.default_rng(0).integers(-2, 3, (9, SIZE))
    stored = read(tmp_path, pixels, PixelPaddingValue=-2000, RescaleIntercept="0")
    np.testing.assert_array_equal(stored.padding[0], pixels == -2000)
    assert stored.scattered.tolist() == [0]


@pytest.mark.parametrize("regions", [True, False])
def test_tissue_with_the_value_of_padding_is_restored(regions: bool, tmp_path: Path) -> None:
    """No speckle stays; beside real padding, nothing else is given its value."""
    pixels = SIGNED.copy()
    pixels[20:24, 30] = 0
    if regions:
        pixels[:10, :10] = 0
    stored = read(tmp_path, pixels, PixelPaddingValue=0, RescaleIntercept="0")
    values = np.where(stored.padding[0], 0, pixels - 3).astype(np.float32)
    restored, _ = encode(values, stored, 0, 1.0, 0.0)
    wanted = np.where(stored.padding[0], 0, pixels - 3)
    assert (restored == 0).sum() == (100 if regions else (wanted == 0).sum())
    np.testing.assert_array_equal(restored[20:24, 30], -3)
    np.testing.assert_array_equal(restored, np.where(regions & (wanted == 0) & ~stored.padding[0], 1, wanted))
