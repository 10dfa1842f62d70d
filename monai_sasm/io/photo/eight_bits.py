"""Photos of data sets as 8-bit arrays, as training wants them; for restoring see :mod:`.photo`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import UnreadableError
from monai_sasm.io.photo.photo import decoded, kind_of, to_samples

_DEEP = ("I", "F")  # what Pillow's names of modes with samples of 16 or 32 bits begin with


def read_bytes(file: Path | BinaryIO) -> NDArray[np.uint8]:
    """One photo as RGB ``(3, H, W)``, without alpha, colour management or rotation; deeper samples are rounded.

    Raises:
        UnreadableError, RefusedError: samples of a kind that is not read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if not image.mode.startswith(_DEEP):
                return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    except UnidentifiedImageError:  # TIFF with three channels of more than 8 bits, for one
        pass
    return _rounded(file)  # Pillow would clip all that is above 255


def _rounded(file: Path | BinaryIO) -> NDArray[np.uint8]:
    if isinstance(file, Path):
        data, name = file.read_bytes(), str(file)
    else:
        file.seek(0)
        data, name = file.read(), "an image of the archive"
    kind = kind_of(data[:64])
    if kind is None:
        raise UnreadableError(f"{name} is no photo that is read: remove it, or export it as PNG")
    values = decoded(kind, data).values  # (H, W, 1 or 3)
    white = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    samples = to_samples(values.astype(np.float32) / np.float32(white), np.dtype(np.uint8))
    return np.ascontiguousarray(np.broadcast_to(samples, (*samples.shape[:2], 3)).transpose(2, 0, 1))
