"""The first look at an image, for its card: thumbnail, size, noise; of a series only the middle file is read."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory
from monai_sasm.io.orientation import orientation_of
from monai_sasm.io.volume import Volume

if TYPE_CHECKING:
    from monai_sasm.functional.noise import NoiseEstimator

SIDE = 176  # pixels, longest side
_SOFT_TISSUE = (-160.0, 240.0)  # HU


def look(entry: Entry, estimator: NoiseEstimator | None = None) -> dict[str, Any]:
    """Thumbnail (a data URL), shape and noise of an image.

    Args:
        entry: not refused.
        estimator: of noise maps; without it the noise is ``None``.

    Raises:
        RefusedError: it cannot be read rightly.
    """
    series = len(entry.paths) > 1
    volume = _middle(entry) if series else entry.load()
    slices = list(volume.each_slice())
    middle = slices[len(slices) // 2]
    shown = orientation_of(volume).show(middle)
    noise = None if estimator is None else _noise(len(slices) // 2, volume, estimator)
    return {
        "thumbnail": _thumbnail(shown, volume),
        "shape": list(shown.shape[1:]),
        "slices": len(entry.paths) if series else len(slices),
        "noise": noise,
        "unit": volume.unit,
    }


def _noise(index: int, volume: Volume, estimator: NoiseEstimator) -> float:
    """Of a slice, in its unit: in uniform tissue, and as estimated where there is too little."""
    import torch

    from monai_sasm.functional.intensity import scaling_for
    from monai_sasm.functional.noise import noise_level
    from monai_sasm.functional.uniform_tissue import middle, uniform_noise

    scaling, profile = scaling_for(volume.stacks()[index // volume.stack_length]), volume.modality.profile
    shown = scaling.forward(np.array(middle(volume.slice_at(index))))
    found = None if profile.is_picture else uniform_noise(shown[None], profile, estimator)
    if found is not None:
        return scaling.scale * found.deviation
    return scaling.scale * noise_level(estimator(torch.from_numpy(shown)[None]))[0]


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
