"""Windows bitmaps."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.photo.pixels import Pixels, check_size, split
from monai_sasm.io.silence import quiet

MAGIC = b"BM"
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGBA"}


def inspect(data: bytes) -> None:
    """Check the header.

    Raises:
        RefusedError: damaged, unknown, or too large.
    """
    _open(data)


def decode(data: bytes) -> Pixels:
    """Pixels and resolution; palettes become RGB, one bit becomes 8.

    Raises:
        RefusedError: as :func:`inspect`, or the pixels are damaged.
    """
    image = _open(data)
    try:
        pixels = np.array(image.convert(_MODES[image.mode]))
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError("the BMP pixels are damaged or end early: copy or export the file again") from error
    notes = (f"{image.mode} bitmap, written as {_MODES[image.mode]}",) if image.mode in ("1", "P") else ()
    return split(pixels, image.info.get("dpi"), notes)


def encode(pixels: Pixels) -> bytes:
    """A BMP file of these uint8 pixels with the source's resolution."""
    from PIL import Image

    buffer = io.BytesIO()
    options = {} if pixels.header is None else {"dpi": pixels.header}
    Image.fromarray(pixels.stacked).save(buffer, "BMP", **options)
    return buffer.getvalue()


def _open(data: bytes) -> Any:
    from PIL import Image

    try:
        with quiet():  # of many pixels and damaged EXIF; what matters is refused
            image = Image.open(io.BytesIO(data), formats=["BMP"])
    except Image.DecompressionBombError as error:
        raise RefusedError("more pixels than any camera makes: cut the image into parts") from error
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise UnreadableError("the BMP header is damaged or of a kind Pillow cannot read: save it as PNG") from error
    if image.mode not in _MODES:
        raise RefusedError(f"a BMP in mode {image.mode}: save it as PNG")
    check_size(*image.size, stored=len(data))
    return image
