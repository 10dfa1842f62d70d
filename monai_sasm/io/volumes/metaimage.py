"""MetaImage of ITK: ``.mha``, or ``.mhd`` with the voxels beside it (https://itk.org/Wiki/MetaIO/Documentation)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.volume import LPS_TO_RAS
from monai_sasm.io.volumes.layout import MAX_HEADER, Layout, affine_from_lps, beside, bytes_of, lines_of
from monai_sasm.types import Modality

NAME = "metaimage"
SUFFIXES = (".mha", ".mhd")
DETACHED = (".mhd",)
_BEGIN = re.compile(rb"(ObjectType|NDims|Comment|ObjectSubType|TransformType)\s*=")
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_PACKING = {"CompressedData", "CompressedDataSize", "ElementDataFile", "HeaderSize"}
_MODALITIES = {"MET_MOD_CT": Modality.CT, "MET_MOD_MR": Modality.MR}


def sniff(head: bytes) -> bool:
    """One of the keys that begin such a header."""
    return _BEGIN.match(head) is not None


def parse(path: Path) -> Layout:
    """The header of a file.

    Raises:
        RefusedError: it is damaged, or holds vectors, several files or a text of numbers.
    """
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER)
    last = re.search(rb"^ElementDataFile\s*=\s*([^\r\n]*)\r?\n?", start, re.MULTILINE)
    if last is None:
        raise UnreadableError("the MetaImage header has no ElementDataFile: the file is damaged, export it again")
    head = start[: last.end()]
    fields = dict(_lines(head))
    try:
        return _layout(path, head, fields)
    except (KeyError, ValueError, OverflowError) as error:
        if isinstance(error, RefusedError):
            raise
        raise UnreadableError("the MetaImage header is damaged or lacks a key: export the file again") from error


def header(layout: Layout, stored: int, data: str | None) -> bytes:
    """See :class:`~monai_sasm.io.volumes.layout.Codec`."""
    kept = [f"{key} = {value}" for key, value in _lines(layout.head) if key not in _PACKING]
    packed = layout.coding != "raw"
    kept += [f"CompressedData = {packed}", *([f"CompressedDataSize = {stored}"] if packed else [])]
    return bytes_of([*kept, f"ElementDataFile = {data or 'LOCAL'}"])


def new(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Layout:
    """See :class:`~monai_sasm.io.volumes.layout.Codec`."""
    count = len(shape)
    lps = LPS_TO_RAS @ affine
    spacing, directions, origin = np.ones(count), np.eye(count), np.zeros(count)
    spacing[:3] = np.linalg.norm(lps[:3, :3], axis=0)
    directions[:3, :3] = (lps[:3, :3] / spacing[:3]).T
    origin[:3] = lps[:3, 3]
    lines = {
        "ObjectType": "Image",
        "NDims": count,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "TransformMatrix": _joined(directions.ravel()),
        "Offset": _joined(origin),
        "ElementSpacing": _joined(spacing),
        "DimSize": _joined(shape),
        "ElementType": "MET_FLOAT",
    }
    head = "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()
    return Layout(shape, np.dtype("<f4"), affine, head, Path(), coding="zlib", channel=3 if count == 4 else None)


def _joined(numbers: object) -> str:
    return " ".join(f"{float(number):.17g}" for number in numbers)  # type: ignore[attr-defined]


def _lines(head: bytes) -> list[tuple[str, str]]:
    pairs = (line.partition("=") for line in lines_of(head) if "=" in line)
    return [(key.strip(), value.strip(" \t\r")) for key, _, value in pairs]


def _layout(path: Path, head: bytes, fields: dict[str, str]) -> Layout:
    if int(fields.get("ElementNumberOfChannels", 1)) != 1:
        raise RefusedError("a MetaImage of vectors or colours: give the original grey volume")
    if fields["ElementType"] not in _TYPES:
        raise RefusedError("a MetaImage of an unknown element type: convert it to MET_FLOAT")
    if not _true(fields.get("BinaryData", "True")):
        raise RefusedError("a MetaImage whose voxels are written as text: save it again as binary")
    if int(fields.get("HeaderSize", 0)) != 0:
        raise RefusedError("a MetaImage over a file with a header of its own: convert it to one .mha file")
    count = int(fields["NDims"])
    shape = tuple(int(word) for word in fields["DimSize"].split())
    if count not in (2, 3, 4) or len(shape) != count:
        raise RefusedError("a MetaImage of another number of axes than an image has: 2, 3 or, with time points, 4")
    order = _true(fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")))
    local = fields["ElementDataFile"].upper() == "LOCAL"
    affine, oriented = _affine(fields, count)
    return Layout(
        shape,
        np.dtype((">" if order else "<") + _TYPES[fields["ElementType"]]),
        affine,
        head,
        data=path if local else beside(path, fields["ElementDataFile"]),
        offset=len(head) if local else 0,
        coding="zlib" if _true(fields.get("CompressedData", "False")) else "raw",
        channel=3 if count == 4 else None,
        modality=_MODALITIES.get(fields.get("Modality", "")),
        notes=() if oriented else ("the header gives no directions; they are taken as those of the patient (LPS)",),
    )


def _true(text: str) -> bool:
    return text[:1].upper() in ("T", "1")


def _affine(fields: dict[str, str], count: int) -> tuple[NDArray[np.float64], bool]:
    """Each row of the matrix is the direction of one axis; Spacing, Matrix and Offset have older names, too."""

    def numbers(*keys: str) -> NDArray[np.float64] | None:
        found = next((fields[key] for key in keys if key in fields), None)
        return None if found is None else np.array([float(word) for word in found.split()])

    spacing = numbers("ElementSpacing", "ElementSize")
    matrix = numbers("TransformMatrix", "Rotation", "Orientation")
    origin = numbers("Offset", "Position", "Origin")
    rows = np.eye(count) if matrix is None else matrix.reshape(count, count)
    steps = np.ones(count) if spacing is None else spacing
    place = np.zeros(count) if origin is None else origin
    if len(steps) != count or len(place) != count:
        raise UnreadableError("ElementSpacing or Offset of the MetaImage do not fit its axes: repair the header")
    spatial = min(count, 3)
    directions, at = np.zeros((spatial, 3)), np.zeros(3)
    directions[:, :spatial] = rows[:spatial, :spatial] * steps[:spatial, None]
    at[:spatial] = place[:spatial]
    return affine_from_lps(directions, at), matrix is not None
