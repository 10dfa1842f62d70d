"""The first look at an image, for its card: thumbnail, size, noise; of a series only the middle file is read."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory
from monai_sasm.io.orientation import orientation_of
from monai_sasm.io.volume import Volume

SIDE = 176  # pixels, longest side
_ENOUGH = 768  # pixels
_SOFT_TISSUE = (-160.0, 240.0)  # HU


def look(entry: Entry, estimator: Callable[[Any], Any] | None = None) -> dict[str, Any]:
    """Thumbnail (a data URL), shape and noise of an image.

    Args:
        entry: not refused.
        estimator: gives the noise map of ``(1, c, H, W)``; without it the noise is ``None``.

    Raises:
        RefusedError: it cannot be read rightly.
    """
    series = len(entry.paths) > 1
    volume = _middle(entry) if series else entry.load()
    slices = list(volume.each_slice())
    middle = slices[len(slices) // 2]
    shown = orientation_of(volume).show(middle)
    noise = None
    if estimator is not None:
        import torch

        from monai_sasm.functional.noise import noise_level

        noise = noise_level(estimator(torch.from_numpy(np.array(_centre(middle)))[None]))[0]
    return {
        "thumbnail": _thumbnail(shown, volume),
        "shape": list(shown.shape[1:]),
        "slices": len(entry.paths) if series else len(slices),
        "noise": noise,
        "unit": volume.unit,
    }


def _centre(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The middle of ``(c, H, W)``: enough to know the noise of a large photo."""
    top, left = (max(0, (side - _ENOUGH) // 2) for side in image.shape[1:])
    return image[:, top : top + _ENOUGH, left : left + _ENOUGH]


def _middle(entry: Entry) -> Volume:
    """The middle slice of a series; its files are sorted by place."""
    path = entry.paths[len(entry.paths) // 2]
    alone = [one for one in inventory(path, entry.modality) if one.refusal is None]
    return alone[0].load() if alone else entry.load()


def _thumbnail(shown: Any, volume: Volume) -> str:
    from PIL import Image

    step = max(1, -(-max(shown.shape[1:]) // (2 * SIDE)))
    small = shown[:, ::step, ::step]
    if volume.modality.profile.is_picture:
        low, high = 0.0, 1.0
    elif volume.unit == "HU":
        low, high = _SOFT_TISSUE
    else:
        low, high = np.percentile(small, [1, 99.5])
    grey = np.rint(255 * ((small - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
    picture = Image.fromarray(np.moveaxis(grey, 0, -1) if len(grey) == 3 else grey[0])
    spacing = orientation_of(volume).spacing
    height, width = (side * (spacing[axis] if spacing else 1) for axis, side in enumerate(shown.shape[1:]))
    scale = SIDE / max(height, width)
    picture = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
