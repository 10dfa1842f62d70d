"""Black and white masks of photos: they lie over a photo as viewers show it, however its pixels are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.orientation import Orientation, orientation_of
from monai_sasm.io.photo.photo import read


def white_pixels(path: Path, size: tuple[int, int], orientation: Orientation) -> NDArray[np.bool_]:
    """Where a mask is white, from the middle grey on, as ``(H, W)`` in the stored order of its photo.

    Args:
        path: any picture; its own EXIF orientation counts, too.
        size: (height, width) of the photo as stored.
        orientation: how the photo is shown, see :func:`monai_sasm.io.orientation.orientation_of`.

    Raises:
        RefusedError: it is no picture, or has another size than the photo as shown.
    """
    mask = read(path)
    white = orientation_of(mask).show(mask.array.mean(0) >= 0.5)
    check_mask_size(white.shape, size[::-1] if orientation.transposed else size)
    return np.ascontiguousarray(orientation.store(white))


def check_mask_size(mask: tuple[int, ...], photo: tuple[int, ...]) -> None:
    """Refuse a mask ``(H, W)`` that does not lie over its photo ``(H, W)``, both turned the same way."""
    if mask == photo:
        return
    wanted, found = (" x ".join(map(str, size[::-1])) for size in (photo, mask))
    way_out = "turn the mask by a quarter, as viewers show the photo" if mask[::-1] == photo else "scale the mask"
    raise RefusedError(f"a mask has the size of its photo, {wanted}, got {found}; {way_out}")
