"""MGH of FreeSurfer, ``.mgz`` or ``.mgh``: big endian, 284 bytes of header, what follows the voxels is kept."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.volumes.layout import NO_ORIENTATION, Layout

NAME = "mgh"
SUFFIXES = (".mgz", ".mgh")
DETACHED: tuple[str, ...] = ()
_HEADER = 284  # bytes
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}
_LARGEST = 1 << 15  # voxels along an axis


def sniff(head: bytes) -> bool:
    """Version 1, four sizes and a type that are possible."""
    if len(head) < 28 or head[:4] != b"\0\0\0\1":
        return False
    *sizes, kind = struct.unpack(">5i", head[4:24])
    return all(0 < size <= _LARGEST for size in sizes) and 0 <= kind <= 16


def parse(path: Path) -> Layout:
    """The header of a file.

    Raises:
        RefusedError: it is damaged, or of a type that is not read.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as plain:
            head = plain.read(_HEADER)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("the MGH file is damaged or ends early: copy it again") from error
    if len(head) < _HEADER:
        raise UnreadableError("the file ends inside the MGH header: it is damaged, copy it again")
    *sizes, kind = struct.unpack(">5i", head[4:24])
    if kind not in _TYPES:
        raise RefusedError(f"an MGH file of type {kind}: convert it to float (mri_convert -odt float)")
    (oriented,) = struct.unpack(">h", head[28:30])
    numbers = np.frombuffer(head, ">f4", 15, 30).astype(np.float64)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes = sizes[:-1]
    return Layout(
        tuple(sizes),
        np.dtype(_TYPES[kind]),
        _affine(numbers if oriented else np.array([1, 1, 1, -1, 0, 0, 0, 0, -1, 0, 1, 0, 0, 0, 0.0]), sizes[:3]),
        head,
        data=path,
        offset=_HEADER,
        coding="file" if packed else "raw",
        channel=3 if len(sizes) == 4 else None,
        notes=() if oriented else (NO_ORIENTATION,),
    )


def header(layout: Layout, stored: int, data: str | None) -> bytes:
    """See :class:`~monai_sasm.io.volumes.layout.Codec`."""
    return layout.head


def new(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Layout:
    """See :class:`~monai_sasm.io.volumes.layout.Codec`.

    Raises:
        ValueError: more voxels along an axis than the format holds, or axes that are not perpendicular.
    """
    from nibabel.freesurfer.mghformat import MGHImage

    steps = np.linalg.norm(affine[:3, :3], axis=0)
    cosines = affine[:3, :3] / steps
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=1e-3):
        raise ValueError("an MGH file needs perpendicular axes, this image is sheared; write .nii.gz")
    zeros = np.broadcast_to(np.float32(0), (*shape, *(1,) * (3 - len(shape))))
    buffer = io.BytesIO()
    MGHImage(zeros, affine).header.writehdr_to(buffer)
    head = buffer.getvalue()[:_HEADER].ljust(_HEADER, b"\0")
    channel = 3 if len(shape) == 4 else None
    return Layout(shape, np.dtype(">f4"), affine, head, Path(), offset=_HEADER, coding="file", channel=channel)


def _affine(numbers: NDArray[np.float64], sizes: list[int]) -> NDArray[np.float64]:
    """From voxel sizes, direction cosines by axis, and the place of the middle."""
    affine = np.eye(4)
    affine[:3, :3] = numbers[3:12].reshape(3, 3).T * numbers[:3]
    affine[:3, 3] = numbers[12:] - affine[:3, :3] @ (np.array(sizes) / 2)
    return affine
