"""Maps beside a result, on the image's own grid: who acted where, what was changed, how sure the expert was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.formats import is_file_name
from monai_sasm.io.maps import write_map
from monai_sasm.io.nifti.names import stem as stem_of
from monai_sasm.io.volume import Volume

if TYPE_CHECKING:
    from monai_sasm.restoration.restored import Restored


def write_maps(restored: Restored, target: Path, *, overwrite: bool = False) -> list[Path]:
    """Write ``<target>_weight-<class>`` of each class that acts, ``<target>_trust``, ``<target>_uncertainty`` and
    ``<target>_change``.

    On the grid of the image: NIfTI for CT and MR, in the image's unit; PNG for photos, the change as change / 2 + 0.5,
    the uncertainty ten times as large. None where slices lie at uneven steps (:func:`have_maps`).
    """
    volume = restored.volume
    if not have_maps(volume):
        return []
    photo = volume.modality.profile.is_picture
    maps = {weight_name(name): weight for name, weight in restored.weights.items() if weight.any()}
    if restored.trust is not None:
        maps["trust"] = restored.trust
    if restored.uncertainty is not None:
        maps["uncertainty"] = (10 * restored.uncertainty).clip(0, 1) if photo else restored.uncertainty
    if restored.change is not None:
        maps["change"] = (restored.change / 2 + 0.5).clip(0, 1) if photo else restored.change
    if photo:
        on_grid = {name: array[0] for name, array in maps.items()}
    else:
        on_grid = {name: volume.from_slices(array[:, None]).array for name, array in maps.items()}
    written: list[Path] = []
    for name, array in on_grid.items():
        written += write_one_map(array, volume, target, name=name, overwrite=overwrite)
    return written


def have_maps(volume: Volume) -> bool:
    """Whether the grid of an image is one that a NIfTI file can tell, as that of its maps must be."""
    return volume.source is None or volume.source.at_equal_steps


def write_one_map(array: NDArray[np.float32], like: Volume, target: Path, *, name: str, overwrite: bool) -> list[Path]:
    """Write one map ``(H, W)`` or ``(T, *spatial)`` as ``<target>_<name>``."""
    photo = like.modality.profile.is_picture
    stem = stem_of(target) if photo or is_file_name(target) else target.name
    single = array[0] if array.ndim > 2 and len(array) == 1 else array
    place = target.with_name(f"{stem}_{name}{'.png' if photo else '.nii.gz'}")
    return write_map(single, like, place, overwrite=overwrite)


def weight_name(name: str) -> str:
    """The part of a file name that stands for a class of the weights."""
    return f"weight-{name.replace(', ', '-').replace(' ', '')}"
