"""PBM, PGM and PPM (netpbm), read with up to 16 bits, and written as PNG."""

from __future__ import annotations

import re

import numpy as np

from monai_sasm.errors import UnreadableError
from monai_sasm.io.photo.pixels import Pixels, check_size, split
from monai_sasm.io.photo.png import PngHeader

_BEGIN = re.compile(rb"P[1-6](?:\s|#)\s*(?:#|\d)")
_SPACE = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADER = re.compile(rb"P([1-6])" + _SPACE + rb"(\d{1,9})" + _SPACE + rb"(\d{1,9})")
_MAXIMUM = re.compile(_SPACE + rb"(\d{1,5})")
_TEXT, _BITS = (1, 2, 3), (1, 4)  # kinds whose numbers are written out, and those of one bit


def is_pnm(head: bytes) -> bool:
    """Whether a file begins like one of them, and not like a text."""
    return _BEGIN.match(head) is not None


def inspect(data: bytes) -> None:
    """Check the header.

    Raises:
        RefusedError: damaged, cut off, or too large.
    """
    _header(data)


def decode(data: bytes) -> Pixels:
    """Pixels over the full range of 8 or 16 bits.

    Raises:
        RefusedError: as :func:`inspect`.
    """
    kind, (width, height), highest, start = _header(data)
    channels = 3 if kind in (3, 6) else 1
    count = width * height * channels
    if kind == 4:
        rows = np.frombuffer(data, np.uint8, height * (-(-width // 8)), start).reshape(height, -1)
        values = np.unpackbits(rows, axis=1)[:, :width].astype(np.int64)
    elif kind in _TEXT:
        text = re.sub(rb"#[^\n\r]*", b"", data[start:])
        words = re.findall(rb"[01]", text) if kind == 1 else text.split()
        if len(words) < count or not all(len(word) < 6 and word.isdigit() for word in words[:count]):
            raise UnreadableError("the PNM pixels are damaged or end early: copy or export the file again")
        values = np.array(words[:count], np.int64)
    else:
        values = np.frombuffer(data, np.uint8 if highest < 256 else ">u2", count, start).astype(np.int64)
    if values.max() > highest:
        raise UnreadableError(f"a PNM value of {values.max()} where the header says {highest} at most: export it again")
    full, dtype = (255, np.uint8) if highest < 256 else (65535, np.uint16)
    pixels = np.rint((highest - values if kind in _BITS else values) * (full / highest)).astype(dtype)
    shaped = pixels.reshape((height, width) if channels == 1 else (height, width, 3))
    return split(shaped, PngHeader(()), ("a PNM file, written as PNG",))


def _header(data: bytes) -> tuple[int, tuple[int, int], int, int]:
    """Kind 1 to 6, width and height, the highest number, and where the pixels begin."""
    found = _HEADER.match(data[:65536])
    if found is None:
        raise UnreadableError("the PNM header is damaged: export the file again")
    kind, width, height = (int(part) for part in found.groups())
    end, highest = found.end(), 1
    if kind not in _BITS:
        maximum = _MAXIMUM.match(data[end : end + 65536])
        if maximum is None or not 0 < int(maximum[1]) < 65536:
            raise UnreadableError("the PNM header has no valid highest value: export the file again")
        end, highest = end + maximum.end(), int(maximum[1])
    channels = 3 if kind in (3, 6) else 1
    check_size(width, height, channels)
    count = width * height * channels
    needed = {4: height * -(-width // 8)}.get(kind, count if kind in _TEXT else count * (1 + (highest > 255)))
    if len(data) - end - 1 < needed - (kind in _TEXT):
        raise UnreadableError(f"the PNM file ends before its {width} x {height} pixels: copy or export it again")
    return kind, (width, height), highest, end + 1
