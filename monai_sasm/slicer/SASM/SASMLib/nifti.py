"""A volume as the bytes of a NIfTI file and back, so that a server gets voxels and geometry exactly as Slicer has them.

Layout: NIfTI-1.1, https://nifti.nimh.nih.gov/nifti-1; one file, little-endian, with an sform.
"""

from __future__ import annotations

import gzip
import struct

import numpy as np

_HEADER, _DATA_AT = 348, 352
_CODES = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "uint16": 512}
_TYPES = {code: np.dtype(name).newbyteorder("<") for name, code in _CODES.items()}
_GZIP_LEVEL = 1  # a network of today is faster than a harder compression
_SCANNER, _MM = 1, 2


def encode(voxels: np.ndarray, ijk_to_ras: np.ndarray) -> bytes:
    """The bytes of a ``.nii.gz`` file.

    Args:
        voxels: ``(K, J, I)`` as Slicer has them, any real type; what NIfTI does not know becomes float32.
        ijk_to_ras: ``(4, 4)`` voxel index to RAS mm.

    Raises:
        ValueError: not three axes, or another matrix.
    """
    if voxels.ndim != 3 or ijk_to_ras.shape != (4, 4):
        raise ValueError(f"expected voxels (K, J, I) and a 4x4 matrix, got {voxels.shape} and {ijk_to_ras.shape}")
    name = voxels.dtype.name if voxels.dtype.name in _CODES else "float32"
    data = np.ascontiguousarray(voxels, dtype=_TYPES[_CODES[name]])
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    header = bytearray(_DATA_AT)
    struct.pack_into("<i", header, 0, _HEADER)
    struct.pack_into("<8h", header, 40, 3, *voxels.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, _CODES[name], 8 * data.itemsize)
    struct.pack_into("<8f", header, 76, 1, *spacing, 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, _DATA_AT, 1, 0)  # where the voxels begin, slope, intercept
    header[123] = _MM
    struct.pack_into("<2h", header, 252, 0, _SCANNER)  # no qform: it cannot hold sheared axes
    struct.pack_into("<12f", header, 280, *ijk_to_ras[:3].ravel())
    header[344:348] = b"n+1\0"
    return gzip.compress(bytes(header) + data.tobytes(), _GZIP_LEVEL)


def decode(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Voxels ``(K, J, I)`` and the ``(4, 4)`` matrix to RAS mm of a file like those of :func:`encode`.

    Raises:
        ValueError: another kind of file.
    """
    try:
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        size = struct.unpack_from("<i", plain, 0)[0]
        dimensions = struct.unpack_from("<8h", plain, 40)
        code = struct.unpack_from("<h", plain, 70)[0]
        start, slope, intercept = struct.unpack_from("<3f", plain, 108)
        sform = struct.unpack_from("<h", plain, 254)[0]
        rows = struct.unpack_from("<12f", plain, 280)
    except (OSError, EOFError, struct.error) as error:
        raise ValueError("the server's answer is no NIfTI file") from error
    if size != _HEADER or dimensions[0] != 3 or code not in _TYPES or sform < 1 or (slope, intercept) != (1, 0):
        raise ValueError("the server's answer is no plain NIfTI volume: three axes, unscaled, with an sform")
    shape = dimensions[3:0:-1]
    voxels = np.frombuffer(plain, _TYPES[code], count=int(np.prod(shape)), offset=int(start)).reshape(shape)
    matrix = np.vstack([np.reshape(rows, (3, 4)), [0, 0, 0, 1]])
    return voxels.astype(_TYPES[code].newbyteorder("=")), matrix
