"""Bits above Bits Stored: padding and two's complement come back, what nothing explains is refused."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.encaps import encapsulate

from monai_sasm.errors import RefusedError
from monai_sasm.io.dicom.pixels import StoredPixels, read_stored
from tests.io.dicom.dicom_cases import SIZE, ct_slice, file_meta_of, save

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
