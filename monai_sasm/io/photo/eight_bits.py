"""Photos of data sets as 8-bit arrays, as training wants them; for restoring see :mod:`.photo`."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray


def read_bytes(file: Path | BinaryIO) -> NDArray[np.uint8]:
    """One photo that Pillow opens as RGB ``(3, H, W)``, without alpha, colour management or rotation."""
    from PIL import Image

    with Image.open(file) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
