"""The pixels and the file of a derived object."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from monai_sasm.io.commit import create
from monai_sasm.io.dicom.pixels import PADDING, extended
from monai_sasm.io.dicom.values import text_of

_SIZES = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated")
_LOSSY_METHODS = {  # transfer syntaxes that lose information -> Lossy Image Compression Method (PS3.3 C.7.6.1.1.5.1)
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}


def mark_lossy(dataset: Dataset, encoded_bytes: int) -> None:
    """A lossy source makes a lossy result; an existing flag, ratio or method is only ever kept or completed."""
    method = _LOSSY_METHODS.get(str(dataset.file_meta.TransferSyntaxUID))
    if method is None or text_of(dataset, "LossyImageCompression") == "01":
        return
    raw_bytes = math.prod(int(dataset.get(size) or 1) for size in _SIZES) // 8
    dataset.LossyImageCompression = "01"
    dataset.LossyImageCompressionMethod = method
    dataset.LossyImageCompressionRatio = f"{max(raw_bytes / max(encoded_bytes, 1), 1.0):.2f}"


def set_pixels(dataset: Dataset, stored: NDArray[np.int32]) -> None:
    """Uncompressed pixels of one or more frames, in the type that the header says."""
    signed = bool(dataset.PixelRepresentation)
    bytes_each = int(dataset.BitsAllocated) // 8
    packed = stored.astype(f"<{'i' if signed else 'u'}{bytes_each}").tobytes()
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    dataset["PixelData"].VR = "OW" if bytes_each == 2 else "OB"
    dataset["PixelData"].is_undefined_length = False
    for keyword in PADDING:  # with its sign, which the pixels have now
        value = dataset.get(keyword)
        if signed and isinstance(value, int) and (whole := int(extended(np.array(value), dataset.BitsStored))) != value:
            dataset.add_new(dataset[keyword].tag, "SS", whole)


def save(dataset: Dataset, path: Path, sources: Iterable[Path]) -> None:
    """A new file in Explicit VR Little Endian, with the permissions of what it was made of."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dataset.preamble = b"\0" * 128
    with create(path, sources) as file:
        if hasattr(dataset, "original_encoding"):
            dcmwrite(file, dataset, enforce_file_format=True)  # save_as would refuse big endian sources
        else:  # pydicom 2.4
            dataset.is_little_endian, dataset.is_implicit_VR = True, False
            dataset.save_as(file, write_like_original=False)
