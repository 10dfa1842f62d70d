"""JPEG, written with the quantisation tables, subsampling and metadata segments of the source (ITU-T T.81, annex B)."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.photo.libjpeg import warnings_of
from monai_sasm.io.photo.pixels import Pixels, check_size, split
from monai_sasm.io.silence import quiet

MAGIC = b"\xff\xd8\xff"
_APP0, _APP1, _APP2, _APP13, _COM, _SOS = 0xE0, 0xE1, 0xE2, 0xED, 0xFE, 0xDA


@dataclass(frozen=True, eq=False)
class JpegHeader:
    """How the source was compressed, and its JFIF, EXIF, XMP, ICC, IPTC and comment segments ``(marker, data)``."""

    tables: Any
    subsampling: int
    progressive: bool
    stored_as_rgb: bool
    segments: tuple[tuple[int, bytes], ...]


def inspect(data: bytes) -> None:
    """Check the header.

    Raises:
        RefusedError: CMYK, damaged, or too large.
    """
    _open(data)


def decode(data: bytes) -> Pixels:
    """Pixels as stored (EXIF orientation is not applied) and what :func:`encode` needs.

    Raises:
        RefusedError: as :func:`inspect`, or the pixels are damaged.
    """
    from PIL import JpegImagePlugin

    image = _open(data)
    try:
        pixels = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError("the JPEG pixels are damaged or end early: copy or export the file again") from error
    notes = _complaint_of(data)
    subsampling = JpegImagePlugin.get_sampling(image) if image.mode == "RGB" else 0
    header = JpegHeader(
        tables=image.quantization,
        subsampling=max(subsampling, 0),  # -1: a layout Pillow cannot write; 4:4:4 loses nothing
        progressive=bool(image.info.get("progressive")),
        stored_as_rgb=image.mode == "RGB" and image.info.get("adobe_transform") == 0,
        segments=tuple(segment for segment in _segments(data) if _describes_picture(*segment)),
    )
    if image.format == "MPO":
        notes = ("only the first of several pictures in this JPEG is processed", *notes)
    return split(pixels, header, notes)


def _complaint_of(data: bytes) -> tuple[str, ...]:
    """What libjpeg finds wrong inside of the pixels, as a note; Pillow keeps it to itself and fills with grey.

    Raises:
        RefusedError: pixels are missing.
    """
    told = warnings_of(data)
    if re.search("[Pp]remature end|bad (Huffman|arithmetic)|found marker|Inconsistent progression", told):
        raise UnreadableError("pixels of the JPEG are missing or damaged inside of the file: copy or export it again")
    if told:
        return ("the JPEG holds bytes that do not belong to it; look whether a part of the picture is damaged",)
    return ()


def encode(pixels: Pixels) -> bytes:
    """A JPEG file of these uint8 pixels with the source's compression and metadata."""
    from PIL import Image

    header: JpegHeader = pixels.header
    image = Image.fromarray(pixels.stacked)
    options = {"qtables": header.tables, "subsampling": header.subsampling, "keep_rgb": header.stored_as_rgb}
    buffer = io.BytesIO()
    try:
        image.save(buffer, "JPEG", progressive=header.progressive, **options)
    except OSError:  # Pillow's buffer for progressive files holds 16 bits per pixel, which pure noise exceeds
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", **options)
    plain, jfif = buffer.getvalue()[2:], b""
    if plain[1] == _APP0:
        end = 2 + struct.unpack(">H", plain[2:4])[0]
        plain, jfif = plain[end:], plain[:end]
    if any(marker == _APP0 for marker, _ in header.segments):
        jfif = b""
    return b"\xff\xd8" + jfif + _joined(header.segments) + plain


def _open(data: bytes) -> Any:
    from PIL import Image

    try:
        with quiet():  # of many pixels and damaged EXIF; what matters is refused
            image = Image.open(io.BytesIO(data), formats=["JPEG"])
    except Image.DecompressionBombError as error:
        raise RefusedError("more pixels than any camera makes: cut the image into parts") from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise UnreadableError("the JPEG header is damaged or of a kind Pillow cannot read: save it again") from error
    if image.mode not in ("L", "RGB"):
        raise RefusedError(f"a {image.mode} JPEG is made for printing: convert it to RGB")
    check_size(*image.size, stored=len(data))
    return image


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and data of each segment before the first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == _SOS:
            return
        length = struct.unpack(">H", data[position + 2 : position + 4])[0]
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _describes_picture(marker: int, body: bytes) -> bool:
    # Left out: APP14, which describes the source's own packing, and in APP2 the index of further pictures (MPF).
    return marker in (_APP0, _APP1, _APP13, _COM) or (marker == _APP2 and body.startswith(b"ICC_PROFILE\0"))


def _joined(segments: tuple[tuple[int, bytes], ...]) -> bytes:
    return b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
