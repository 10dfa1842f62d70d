"""How an image is shown: slices as radiologists look at them, patient's right on the left, front or head up; photos as
their EXIF orientation says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.volume import Volume

_ENDS = ("RL", "AP", "SI")  # of the x, y and z axes of RAS: where they point to, and where they come from
_TURNS = {  # EXIF orientation -> what Orientation takes
    1: (False, (False, False)),
    2: (False, (False, True)),
    3: (False, (True, True)),
    4: (False, (True, False)),
    5: (True, (False, False)),
    6: (True, (False, True)),
    7: (True, (True, True)),
    8: (True, (True, False)),
}


@dataclass(frozen=True)
class Orientation:
    """What is done to the rows and columns of a slice or photo before it is shown.

    Args:
        transposed: rows and columns change places, first of all.
        flips: whether (rows, columns) are reversed, after that.
        spacing: mm between (rows, columns) as shown; ``None`` where it is not known.
        ends: what lies at the left, right, top and bottom edge: letters such as ``R``; empty for photos.
    """

    transposed: bool = False
    flips: tuple[bool, bool] = (False, False)
    spacing: tuple[float, float] | None = None
    ends: tuple[str, str, str, str] | tuple[()] = ()

    def show(self, image: NDArray[Any]) -> NDArray[Any]:
        """``(..., H, W)`` as it is shown; a view."""
        shown = image.swapaxes(-1, -2) if self.transposed else image
        shown = shown[..., ::-1, :] if self.flips[0] else shown
        return shown[..., ::-1] if self.flips[1] else shown

    def store(self, shown: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`show`; a view."""
        image = shown[..., ::-1] if self.flips[1] else shown
        image = image[..., ::-1, :] if self.flips[0] else image
        return image.swapaxes(-1, -2) if self.transposed else image

    def stored_box(
        self, box: tuple[float, float, float, float], size: tuple[int, int]
    ) -> tuple[float, float, float, float]:
        """(top, left, bottom, right) of what is shown, ``size`` (height, width) large, in the image as stored."""
        (top, left, bottom, right), (height, width) = box, size
        if self.flips[1]:
            left, right = width - right, width - left
        if self.flips[0]:
            top, bottom = height - bottom, height - top
        return (left, top, right, bottom) if self.transposed else (top, left, bottom, right)


def orientation_of(volume: Volume) -> Orientation:
    """The orientation of a photo, or of the slices of a volume; as they are where their place in space is not known."""
    if volume.modality.profile.is_picture:
        return Orientation(*_TURNS[volume.exif_orientation])
    if volume.affine is None or volume.array.ndim < 3:
        return Orientation()
    axes = [axis for axis in range(volume.array.ndim - 1) if axis != volume.slice_axis]
    rows, columns = (volume.affine[:3, axis] for axis in axes)
    spacing = (float(np.linalg.norm(rows)), float(np.linalg.norm(columns)))
    down, across = (int(np.argmax(np.abs(one))) for one in (rows, columns))
    if down == across or not all(spacing):
        return Orientation(spacing=spacing if all(spacing) else None)
    transposed = down < across  # x runs across before y, and y before z
    if transposed:
        rows, columns, down, across, spacing = columns, rows, across, down, (spacing[1], spacing[0])
    flips = (bool(rows[down] > 0), bool(columns[across] > 0))  # shown towards left, back and feet
    first, second = _ENDS[across], _ENDS[down]
    return Orientation(transposed, flips, spacing, (first[0], first[1], second[0], second[1]))
