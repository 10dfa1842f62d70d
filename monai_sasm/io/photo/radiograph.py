"""Whether a photo is a picture of an X-ray, CT or MR image, which the photo experts do not know."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WORDS = re.compile(
    "ct|cta|cbct|pet|mr|mra|mri|mrt|xray|xr|cxr|rx|radiograph|radiography|roentgen|thorax|chest|lungs?|brain|spine|flair|"
    "dwi|axial|coronal|sagittal|dicom|dcm|pacs|mammo|mammogram|mammography|angiogram"
)
_SAMPLES = 256  # rows and columns that are looked at
_GREY, _BLACK = 0.02, 0.06  # of full scale: difference of colours, and a value that is none
_SURROUND, _INSIDE = 0.8, 0.15  # share of the frame that is black, and of the rest that is not
_FRAME = 16  # part of a side that the frame is wide


def note_on(array: NDArray[Any], name: str) -> tuple[str, ...]:
    """A note for whoever restores such a picture as a photo; none for other photos.

    Args:
        array: ``(C, H, W)`` in [0, 1], ``C`` 1 or 3.
        name: of the file, without suffix.
    """
    thin = array[:, :: 1 + array.shape[1] // _SAMPLES, :: 1 + array.shape[2] // _SAMPLES]
    if float((thin.max(0) - thin.min(0)).mean()) > _GREY:
        return ()
    words = re.findall("[a-z]+", re.sub("x[-_ ]ray", "xray", name.lower()))
    if any(map(_WORDS.fullmatch, words)):
        why = "has such a name"
    elif _is_surrounded(thin.mean(0)):
        why = "lies in black"
    else:
        return ()
    return (
        f"this picture is grey and {why}: if it shows an X-ray, CT or MR, know that photo experts were not made for "
        "it and its values have no unit; restore the original DICOM or NIfTI",
    )


def _is_surrounded(grey: NDArray[Any]) -> bool:
    rows, columns = (max(1, side // _FRAME) for side in grey.shape)
    frame = np.ones(grey.shape, bool)
    frame[rows:-rows, columns:-columns] = False
    if frame.all():
        return False
    return bool((grey[frame] < _BLACK).mean() >= _SURROUND and (grey[~frame] >= _BLACK).mean() >= _INSIDE)
