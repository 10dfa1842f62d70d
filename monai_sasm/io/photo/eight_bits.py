"""Photos of data sets as 8-bit arrays, as training and measuring want them; for restoring see :mod:`.photo`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


def read_bytes(file: Path | BinaryIO, keep_grey: bool = False) -> NDArray[np.uint8]:
    """One photo as RGB ``(3, H, W)``, without alpha, colour management or rotation.

    Args:
        file: anything that Pillow opens.
        keep_grey: give 8-bit grey photos as ``(1, H, W)``.
    """
    from PIL import Image

    with Image.open(file) as image:
        pixels = np.asarray(image if keep_grey and image.mode == "L" else image.convert("RGB"))
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
