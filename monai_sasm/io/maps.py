"""Companion maps of an image (expert weights, change) on its grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.entry import safe_name
from monai_sasm.io.volume import Volume, files_of


def write_map(
    array: NDArray[np.float32],
    like: Volume,
    path: Path,
    *,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a companion map (expert weights, change) on the grid of an image.

    Args:
        array: float32 with the spatial shape of ``like``, or ``(K, *spatial)`` for ``K`` maps. For photos in [0, 1].
        like: the image the map belongs to.
        path: ``.nii`` or ``.nii.gz`` for CT and MR (float32, ``K`` as fourth axis); ``.png`` for photos (8-bit grey,
            ``K`` files ``<stem>_<name>.png``, turned by viewers as the photo is).
        names: one file-name part per map of a photo; numbers by default.
        overwrite: replace existing files.

    Raises:
        FileExistsError: a target exists and ``overwrite`` is off.
        ValueError: wrong suffix, shape or value range.
    """
    path = Path(path)
    array = np.asarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError("a map must be finite, got NaN or infinite values")
    if not like.modality.profile.is_picture:
        from monai_sasm.io.nifti.export import export

        return [export(array, like, path, overwrite=overwrite)]
    from monai_sasm.io.photo.photo import write_png

    spatial = like.array.shape[1:]
    if array.shape != spatial and array.shape[1:] != spatial:
        raise ValueError(f"expected shape {spatial} or (K, *{spatial}) as the image has, got {array.shape}")
    if array.min() < -1e-3 or array.max() > 1 + 1e-3:
        raise ValueError(f"maps of photos lie in [0, 1], got [{array.min():g}, {array.max():g}]; scale them first")
    if array.ndim == 2:
        return [write_png(array, path, orientation=like.exif_orientation, overwrite=overwrite, sources=files_of(like))]
    labels = [str(index) for index in range(len(array))] if names is None else [safe_name(name) for name in names]
    if len(labels) != len(array):
        raise ValueError(f"one name per map is needed, got {len(labels)} names for {len(array)} maps")
    targets = [path.with_name(f"{path.stem}_{label}{path.suffix}") for label in labels]
    return [
        write_png(one, target, orientation=like.exif_orientation, overwrite=overwrite, sources=files_of(like))
        for one, target in zip(array, targets, strict=True)
    ]
