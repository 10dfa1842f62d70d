"""Files that cameras, scanners and archives really write: odd, but right; their pixels are exact."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.photo import photo

GREY = np.add.outer(np.arange(48), 3 * np.arange(64)).astype(np.uint8)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], -1)
WHOLE = "the previews and masks behind the picture in this TIFF are not carried over"


def tiff(*pages: tuple[NDArray[np.generic], dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for pixels, options in pages:
            writer.write(pixels, metadata=None, **options)
    return buffer.getvalue()


def undeclared_alpha() -> bytes:
    """RGB with four samples and no ExtraSamples (tag 338), as older software writes it."""
    data = bytearray(tiff((np.dstack([COLOUR, GREY]), {"photometric": "rgb", "extrasamples": ["unassalpha"]})))
    at = data.find(struct.pack("<HH", 338, 3))
    data[at : at + 2] = struct.pack("<H", 65000)
    return bytes(data)


def few_bits(bits: int) -> bytes:
    """One strip of packed grey samples."""
    levels = np.unpackbits((GREY >> (8 - bits))[..., None], axis=2)[..., 8 - bits :]
    packed = np.packbits(levels.reshape(48, -1), axis=1).tobytes()
    tags = {256: 64, 257: 48, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 48, 279: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(kind: bytes, body: bytes) -> bytes:
    plain = saved("PNG")
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return plain[:33] + chunk + plain[33:]


def jpeg_with_thumbnail() -> bytes:
    whole, small = saved("JPEG"), saved("JPEG", quality=5)
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 8) + b"Exif\0\0" + small + whole[2:]


DECODED = np.asarray(Image.open(io.BytesIO(saved("JPEG"))))
SMALLER, MASK = COLOUR[::2, ::2].copy(), GREY > 9
CASES = {  # file -> its pixels, and a note
    "with a smaller version.tif": (tiff((COLOUR, {}), (SMALLER, {"subfiletype": 1})), COLOUR, (WHOLE,)),
    "with a mask.tif": (tiff((COLOUR, {}), (MASK, {"subfiletype": 4, "photometric": 4})), COLOUR, (WHOLE,)),
    "with undeclared alpha.tif": (undeclared_alpha(), COLOUR, ()),
    "4 bits.tif": (few_bits(4), GREY // 16 * 17, ("4-bit image, written with 8 bits",)),
    "2 bits.tif": (few_bits(2), GREY // 64 * 85, ("2-bit image, written with 8 bits",)),
    "tiles.tif": (tiff((COLOUR, {"tile": (16, 16)})), COLOUR, ()),
    "animation of one picture.png": (png_with(b"acTL", struct.pack(">II", 1, 0)), COLOUR, ()),
    "bytes behind the end.png": (saved("PNG") + b"from elsewhere" * 9, COLOUR, ()),
    "bytes of a phone behind the end.jpg": (saved("JPEG") + bytes(99) + b"SEFT", DECODED, ()),
    "two pictures.jpg": (saved("JPEG") + saved("JPEG", quality=5), DECODED, ()),
    "with a thumbnail.jpg": (jpeg_with_thumbnail(), DECODED, ()),
    "saved by a browser.jfif": (saved("JPEG"), DECODED, ()),
}


@pytest.mark.parametrize("name", CASES)
def test_odd_files_that_are_right_are_read(name: str, tmp_path: Path) -> None:
    data, expected, notes = CASES[name]
    (tmp_path / name).write_bytes(data)
    entry = photo.inspect(tmp_path / name)
    assert entry.refusal is None
    volume = entry.load()
    np.testing.assert_array_equal(np.rint(volume.array * 255), np.moveaxis(np.atleast_3d(expected), 2, 0))
    assert volume.notes == notes
    (result,) = photo.write(volume, tmp_path / "out" / name, Derivation("monai_sasm", "1.0"))
    back = photo.read(result).array
    np.testing.assert_allclose(back, volume.array, atol=0.03 if Path(name).suffix in (".jpg", ".jfif") else 1e-6)
