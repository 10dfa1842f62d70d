"""Pixels of a photo file as the codecs (:mod:`png`, :mod:`jpeg`, :mod:`tiff`, :mod:`bmp`) hand them over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.memory import refuse_if_too_large, refuse_if_too_short

MAX_PIXELS = 178_956_970  # where Pillow, too, takes an image for a decompression bomb
_PER_VALUE = 4  # bytes of the photo itself, float32
_PER_PIXEL = 17  # bytes of what is made of it: three channels, the noise map, and what is flat
_AT_WORK, _WINDOW = 240, 1408**2  # bytes per pixel in networks, and pixels of the largest part that one sees at once
_PROCESS, _SMALL = 230, 1_000_000  # MB of a process with its networks; of a small photo only its share is counted


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded pixels in stored order (EXIF orientation is not applied).

    Args:
        values: ``(H, W, C)`` with ``C`` 1 or 3; uint8, uint16, or float32/float16 in [0, 1].
        alpha: ``(H, W)`` of the same type, or ``None``.
        header: what the codec needs to write the same kind of file again.
        notes: decisions taken while decoding.
    """

    values: NDArray[Any]
    alpha: NDArray[Any] | None
    header: Any
    notes: tuple[str, ...] = ()

    @property
    def stacked(self) -> NDArray[Any]:
        """``(H, W)`` or ``(H, W, channels)`` with alpha last, as encoders want it."""
        if self.alpha is not None:
            return np.ascontiguousarray(np.concatenate([self.values, self.alpha[..., None]], axis=2))
        return np.ascontiguousarray(self.values[..., 0] if self.values.shape[2] == 1 else self.values)


def split(pixels: NDArray[Any], header: Any, notes: tuple[str, ...] = ()) -> Pixels:
    """Pixels from ``(H, W)`` or ``(H, W, 1..4)``; two and four channels end with alpha."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] in (2, 4):
        return Pixels(pixels[..., :-1], pixels[..., -1], header, notes)
    return Pixels(pixels, None, header, notes)


def check_size(width: int, height: int, channels: int = 3, *, stored: int | None = None) -> None:
    """Refuse what only a damaged or hostile header would claim.

    Args:
        width: pixels.
        height: pixels.
        channels: values of a pixel.
        stored: bytes of the file.

    Raises:
        RefusedError: no pixels, too many pixels, more than the file can hold, or more than fits in memory.
    """
    if width < 1 or height < 1:
        raise UnreadableError(f"an image needs pixels, the header says {width} x {height}: the file is damaged")
    if width * height > MAX_PIXELS:
        raise RefusedError(f"{width} x {height} pixels exceed the limit of {MAX_PIXELS}: cut the image into parts")
    if stored is not None:
        refuse_if_too_short(width * height, stored)
    refuse_if_too_large(memory_for(width * height, channels))


def memory_for(pixels: int, channels: int) -> int:
    """Bytes that a photo takes from file to file, the loaded networks included; measured on 3 to 100 megapixels."""
    working = min(pixels, _WINDOW) * _AT_WORK + min(pixels, _SMALL) * _PROCESS
    return pixels * (channels * _PER_VALUE + _PER_PIXEL) + working
