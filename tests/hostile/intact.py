"""Small intact files of every kind that is read, for tests that damage them."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import nibabel
import numpy as np
import tifffile
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.uid import UID

from tests.io.dicom.dicom_cases import STEP, ct_slice, enhanced_ct, file_meta_of, mr_slice, stored_values

SIDE = 32  # pixels of the slices and pictures
CODINGS = {"rle": "1.2.840.10008.1.2.5", "j2k": "1.2.840.10008.1.2.4.90", "jls": "1.2.840.10008.1.2.4.80"}
_READ_ONLY = {"gif": "GIF", "webp": "WEBP", "jp2": "JPEG2000", "ppm": "PPM", "avif": "AVIF"}
_PNG_HEAD = 8  # bytes before the first chunk

Bytes = Callable[[bytes], bytes]


def _as_it_is(content: bytes) -> bytes:
    return content


@dataclass(frozen=True)
class Intact:
    """One input: a file, or a series of which one file will be damaged.

    Args:
        name: of the file.
        content: what the damage is done to.
        beside: further files of the same series, left intact.
        pack: from ``content`` to the bytes on disk: compression, checksums; damage inside of it gets past these.
    """

    name: str
    content: bytes = field(repr=False)
    beside: tuple[bytes, ...] = field(default=(), repr=False)
    pack: Bytes = field(default=_as_it_is, repr=False)


Image.init()


@cache
def intact_files() -> tuple[Intact, ...]:
    """One of each kind."""
    return (*_series(), *_volumes(), *_others(), *_pictures())


def _series() -> list[Intact]:
    plain = [_cropped(ct_slice(number)) for number in range(3)]
    mr = [_cropped(mr_slice(number)) for number in range(3)]
    found = [
        Intact("ct.dcm", _file(plain[1]), (_file(plain[0]), _file(plain[2]))),
        Intact("mr.dcm", _file(mr[1]), (_file(mr[0]), _file(mr[2]))),
        Intact("single.dcm", _file(_cropped(ct_slice(0, series="single")))),
        Intact("enhanced.dcm", _file(enhanced_ct([0.0, STEP]))),
        Intact("implicit.dcm", _file(_cropped(ct_slice(0, series="implicit")), "1.2.840.10008.1.2")),
        Intact("deflated.dcm", _file(_cropped(ct_slice(0, series="deflated")), "1.2.840.10008.1.2.1.99")),
    ]
    for name, coding in CODINGS.items():
        dataset = _cropped(ct_slice(0, series=name))
        dataset.file_meta = file_meta_of(dataset)
        dataset.compress(coding, generate_instance_uid=False)
        found.append(Intact(f"{name}.dcm", _file(dataset, coding)))
    return found


def _volumes() -> list[Intact]:
    random = np.random.default_rng(0)
    whole = random.integers(0, 900, (SIDE, SIDE, 3))
    small = _nifti(whole.astype(np.int16))
    return [
        Intact("sub-1_T1w.nii", small),
        Intact("sub-2_T1w.nii.gz", gzip.compress(small, 1, mtime=0)),
        Intact("sub-3_T1w.nii.gz", small, pack=lambda content: gzip.compress(content, 1, mtime=0)),
        Intact("sub-4_ct.nii", _nifti((whole - 400).astype(np.float32))),
        Intact("sub-5_bold.nii", _nifti(random.integers(0, 255, (SIDE, SIDE, 2, 2)).astype(np.uint8), slope=0.5)),
        Intact("sub-6_T2w.nii", _nifti(whole.astype(np.float64), nibabel.Nifti2Image)),
    ]


def _others() -> list[Intact]:
    """NRRD, MetaImage and MGH, whose names say what made them."""
    numbers = np.random.default_rng(0).integers(0, 900, (SIDE, SIDE, 3)).astype("<i2")
    voxels, sizes, affine = numbers.tobytes(order="F"), f"{SIDE} {SIDE} 3", np.diag([1.0, 1.0, 3.0, 1.0])
    nrrd = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\nspace directions: "
        "(1,0,0) (0,1,0) (0,0,3)\nkinds: domain domain domain\nendian: little\nencoding: CODING\n"
        "space origin: (0,0,0)\n\n"
    )
    meta = (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = PACKED\n"
        f"TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 3\nDimSize = {sizes}\n"
        "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    return [
        Intact("sub-1_T1w.nrrd", nrrd.replace("CODING", "raw").encode() + voxels),
        Intact("sub-2_T1w.nrrd", nrrd.replace("CODING", "gzip").encode() + gzip.compress(voxels, 1, mtime=0)),
        Intact("sub-3_T1w.mha", meta.replace("PACKED", "False").encode() + voxels),
        Intact("sub-4_T1w.mha", meta.replace("PACKED", "True").encode() + zlib.compress(voxels, 1)),
        Intact("sub-5_T1w.mgh", bytes(nibabel.MGHImage(numbers.astype(">i2"), affine).to_bytes())),
    ]


def _pictures() -> list[Intact]:
    rows, columns = np.mgrid[:SIDE, :SIDE] * 255 // SIDE
    colour = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    colour += np.random.default_rng(0).integers(0, 9, colour.shape, np.uint8)
    image = Image.fromarray(colour)
    found = [
        Intact(f"{kind.lower()}.{suffix}", _saved(one, kind, **options))
        for one, kind, suffix, options in (
            (image, "PNG", "png", {}),
            (image, "JPEG", "jpg", {"exif": Image.Exif()}),
            (image, "BMP", "bmp", {}),
            (image, "TIFF", "tif", {"compression": "tiff_lzw"}),
        )
    ]
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, colour.astype(np.uint16) * 257, photometric="rgb", metadata=None)
    return [
        *found,
        Intact("checked.png", _saved(image.quantize(16), "PNG"), pack=with_checksums),
        Intact("deep.png", _saved(Image.fromarray(rows.astype(np.uint16) * 257), "PNG"), pack=with_checksums),
        Intact("progressive.jpg", _saved(image, "JPEG", progressive=True, quality=60)),
        *(Intact(f"a.{suffix}", _saved(image, kind)) for suffix, kind in _READ_ONLY.items() if kind in Image.SAVE),
        Intact("deep.tif", buffer.getvalue()),
    ]


def with_checksums(content: bytes) -> bytes:
    """A PNG whose chunks all have the right checksum, as far as they can be told apart."""
    parts, position = [content[:_PNG_HEAD]], _PNG_HEAD
    while position + 12 <= len(content):
        length = struct.unpack(">I", content[position : position + 4])[0]
        body = content[position + 4 : position + 8 + length]
        parts += [content[position : position + 4], body, struct.pack(">I", zlib.crc32(body))]
        position += 12 + length
    return b"".join([*parts, content[position:]])


def _cropped(dataset: Dataset) -> Dataset:
    signed = dataset.PixelRepresentation
    pixels = stored_values(int(dataset.InstanceNumber) - 1)[:SIDE, :SIDE]
    dataset.Rows = dataset.Columns = SIDE
    dataset.PixelData = pixels.astype("<i2" if signed else "<u2").tobytes()
    return dataset


def _file(dataset: Dataset, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    meta = file_meta_of(dataset)
    meta.TransferSyntaxUID = UID(syntax)
    dataset.file_meta, dataset.preamble = meta, b"\0" * 128
    buffer = DicomBytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return bytes(buffer.getvalue())


def _nifti(values: np.ndarray, kind: type = nibabel.Nifti1Image, slope: float | None = None) -> bytes:
    image = kind(values, np.diag([1.0, 1.0, 3.0, 1.0]))
    if slope is not None:
        image.header.set_slope_inter(slope, 0)
    return bytes(image.to_bytes())


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
