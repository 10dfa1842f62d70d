"""PNG with 8 or 16 bits per channel; all metadata chunks are copied (PNG specification, third edition, clause 11)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.photo.pixels import Pixels, check_size, split

MAGIC = b"\x89PNG\r\n\x1a\n"
_PALETTE = 3  # colour type
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour type -> colour channels
_KEPT = {  # everything that describes the picture, not the packing of its samples
    *(b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI"),
    *(b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt"),
}
_BEFORE_DATA = {b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"pHYs"}


@dataclass(frozen=True)
class PngHeader:
    """Ancillary chunks ``(type, data)`` in the order of the source file."""

    chunks: tuple[tuple[bytes, bytes], ...]


def inspect(data: bytes) -> tuple[int, int]:
    """Bit depth and colour type of a PNG this package can process.

    Raises:
        RefusedError: animated, damaged, or too large.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise UnreadableError("the PNG header is damaged: export the file again")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    if colour not in _CHANNELS or depth not in (1, 2, 4, 8, 16):
        raise UnreadableError("the PNG header is damaged: export the file again")
    check_size(width, height, _CHANNELS[colour], stored=len(data))
    if any(kind == b"acTL" and body[:4] != b"\0\0\0\1" for kind, body in _chunks(data)):  # more frames than one
        raise RefusedError("an animated PNG: save the wanted picture as a single one")
    return depth, colour


def decode(data: bytes) -> Pixels:
    """Pixels and metadata; palettes become RGB, colour keys become alpha, less than 8 bits become 8.

    Raises:
        RefusedError: as :func:`inspect`, or the pixels are damaged.
    """
    import imagecodecs

    depth, colour = inspect(data)
    try:
        pixels = imagecodecs.png_decode(data)
    except (RuntimeError, ValueError) as error:
        raise UnreadableError("the PNG pixels are damaged or end early: copy or export the file again") from error
    notes: tuple[str, ...] = ()
    if colour == _PALETTE:
        notes = ("palette image, written as RGB",)
    elif depth < 8:
        notes = (f"{depth}-bit grey image, written with 8 bits",)
    header = PngHeader(tuple((kind, body) for kind, body in _chunks(data) if kind in _KEPT))
    return split(pixels, header, notes)


def encode(pixels: Pixels) -> bytes:
    """A PNG file of these pixels with the metadata chunks of the source."""
    plain = encode_plain(pixels.stacked)
    first: list[bytes] = []
    last: list[bytes] = []
    for kind, body in pixels.header.chunks:
        (first if kind in _BEFORE_DATA else last).append(_chunk(kind, body))
    after_ihdr = len(MAGIC) + 25
    end = plain.rindex(b"IEND") - 4
    return b"".join([plain[:after_ihdr], *first, plain[after_ihdr:end], *last, plain[end:]])


def with_warning(header: PngHeader, text: str) -> PngHeader:
    """The header with a text chunk under the registered keyword "Warning" (clause 11.3.3.2: nature of the content)."""
    return PngHeader((*header.chunks, (b"iTXt", b"Warning\0\0\0\0\0" + text.encode())))


def is_drawn(data: bytes) -> bool:
    """Whether a file carries a warning of this program that detail was drawn (:func:`with_warning`)."""
    texts = (body for kind, body in _chunks(data) if kind == b"iTXt" and body.startswith(b"Warning\0\0\0\0\0"))
    return any(b"detail was drawn" in text or b"detail may be invented" in text for text in texts)


def encode_plain(pixels: NDArray[Any]) -> bytes:
    """A PNG file without metadata of uint8 or uint16 ``(H, W[, 2..4])``."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and data of each chunk, image data left out; stops quietly where the file ends early."""
    position = len(MAGIC)
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"IEND":
            return
        if kind != b"IDAT":
            yield kind, data[position + 8 : position + 8 + length]
        position += 12 + length


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
