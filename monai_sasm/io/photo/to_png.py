"""Photos of other kinds as PNG: how they are turned, their colours and their resolution come along."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.photo.exif import orientation_block, orientation_in
from monai_sasm.io.photo.jpeg import JpegHeader
from monai_sasm.io.photo.png import PngHeader
from monai_sasm.io.photo.tiff import TiffHeader

_ICC, _EXIF, _XMP = b"ICC_PROFILE\0", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ORIENTATION, _PROFILE = 274, 34675  # TIFF tags
_METRE = {2: 1 / 0.0254, 3: 100.0}  # units of TIFF and EXIF -> how many of them a metre has


def png_header(header: Any) -> PngHeader:
    """The chunks that stand for the header of any codec of this package.

    EXIF and XMP of JPEG are kept whole; of TIFF orientation, colour profile and resolution; of BMP its resolution.
    """
    if isinstance(header, PngHeader):
        return header
    if isinstance(header, JpegHeader):
        return PngHeader(tuple(_of_jpeg(header)))
    if isinstance(header, TiffHeader):
        return PngHeader(tuple(_of_tiff(header)))
    return PngHeader(() if header is None else (_resolution(header, 2),))


def exif_orientation(header: Any) -> int:
    """How viewers turn a photo with the header of any codec: 1, as it is stored, to 8 (EXIF 2.3, tag 274)."""
    return next((orientation_in(body) for kind, body in png_header(header).chunks if kind == b"eXIf"), 1)


def straight(values: NDArray[np.float32], alpha: NDArray[Any] | None, header: Any) -> NDArray[np.float32]:
    """``(H, W, C)`` in [0, 1] as PNG has it, whose colours are not multiplied by alpha, as those of some TIFF are.

    Raises:
        ValueError: a TIFF says that its last band is something else than alpha.
    """
    extra = getattr(header, "extra", None)
    if alpha is not None and extra == 0:
        raise ValueError("a PNG would make transparency of the last band of this TIFF, which is none; write TIFF")
    if alpha is None or extra != 1:
        return values
    part = alpha / np.float32(np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1)
    return np.where(part[..., None] > 0, values / np.maximum(part, 1e-6)[..., None], 0).astype(np.float32)


def _of_jpeg(header: JpegHeader) -> list[tuple[bytes, bytes]]:
    bodies = [body for _, body in header.segments]
    profile = b"".join(body[14:] for body in sorted(one for one in bodies if one.startswith(_ICC)))
    chunks = [_profile(profile)] if profile else []
    jfif = next((body for body in bodies if body.startswith(b"JFIF\0") and len(body) >= 12), None)
    if jfif is not None and jfif[7] in (1, 2):
        chunks.append(_resolution(struct.unpack(">HH", jfif[8:12]), jfif[7] + 1))
    chunks += [(b"eXIf", body.removeprefix(_EXIF)) for body in bodies if body.startswith(_EXIF)][:1]
    texts = [body.removeprefix(_XMP) for body in bodies if body.startswith(_XMP)][:1]
    return chunks + [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + text) for text in texts]


def _of_tiff(header: TiffHeader) -> list[tuple[bytes, bytes]]:
    values = {code: value for code, _, _, value in header.tags}
    chunks = [_profile(bytes(values[_PROFILE]))] if values.get(_PROFILE) else []
    if header.resolution is not None and header.resolution_unit in _METRE:
        sides = [part / whole for part, whole in header.resolution]
        chunks.append(_resolution(sides, header.resolution_unit))
    if values.get(_ORIENTATION, 1) != 1:
        chunks.append((b"eXIf", orientation_block(int(values[_ORIENTATION]))))
    return chunks


def _profile(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)


def _resolution(sides: Sequence[float], unit: int) -> tuple[bytes, bytes]:
    across, down = (min(2**31 - 1, max(0, round(side * _METRE[unit]))) for side in sides)
    return b"pHYs", struct.pack(">IIB", across, down, 1)
