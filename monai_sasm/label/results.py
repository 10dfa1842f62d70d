"""Result files: float32 images and label maps on the grid of the source, as NIfTI or NRRD; photos as they came."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import write
from monai_sasm.io.nifti_export import export, on_nifti_axes
from monai_sasm.io.raster import SUFFIXES
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

NIFTI = (".nii.gz", ".nii")
NRRD = (".nrrd", ".seg.nrrd")
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def new_file(extension: str) -> Path:
    """An empty file with that ending, in the folder for temporary files; whoever asked for it removes it."""
    handle, name = tempfile.mkstemp(suffix=extension, prefix="sasm-")
    os.close(handle)
    return Path(name)


def check_extension(extension: str | None, modality: Modality) -> None:
    """Refuse an extension in which a result cannot be written, before any work is done.

    Raises:
        ValueError: neither NIfTI nor NRRD for CT and MR; NIfTI for a photo.
    """
    allowed = NRRD if modality is Modality.PHOTO else (*NIFTI, *NRRD)
    if extension and extension not in allowed:
        raise ValueError(f"a {modality.value} result is written as {', '.join(allowed)}, got {extension!r}")


def write_image(volume: Volume, extension: str | None, done: Derivation) -> Path:
    """Write a restored volume, in its own unit.

    Args:
        volume: as restored.
        extension: ``.nrrd``, ``.nii.gz`` or ``.nii``; ``None`` is ``.nii.gz`` for CT and MR, and for photos the kind
            of file they came as. A photo in NRRD is float32, too, from 0 to 1.
        done: for the headers of a photo.

    Returns:
        A new file; CT and MR as float32, whatever type the source had.
    """
    check_extension(extension, volume.modality)
    if volume.modality is Modality.PHOTO:
        path = new_file(extension or SUFFIXES[volume.source.kind][0])
        if extension:
            pixels = np.ascontiguousarray(volume.array.transpose(1, 2, 0))
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(path))
        else:
            write(volume, path, done, overwrite=True)
        return path
    values = volume.array if len(volume.array) > 1 else volume.array[0]
    path = new_file(extension or ".nii.gz")
    if extension in NRRD:
        _write_nrrd(*on_nifti_axes(values, volume), path)
    else:
        export(values, volume, path, overwrite=True)
    return path


def write_labels(labels: NDArray[np.uint8], affine: NDArray[np.float64], extension: str | None) -> Path:
    """Write a label map ``(i, j, k)`` with its affine, voxel to RAS mm, as uint8; ``.nii.gz`` when ``None``."""
    check_extension(extension, Modality.MR)
    path = new_file(extension or ".nii.gz")
    if extension in NRRD:
        _write_nrrd(labels, affine, path)
    else:
        nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return path


def _write_nrrd(values: NDArray[Any], affine: NDArray[np.float64], path: Path) -> None:
    """Write ``(i, j, k)`` as NRRD, in LPS mm; sheared axes are kept."""
    if values.ndim != 3:
        raise ValueError("several volumes at once go into .nii.gz, not into NRRD; ask for that extension")
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    lps = _RAS_TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
