"""Result files: float32 images and label maps on the grid of the source, as NIfTI or NRRD; photos as they came."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import target_for, write
from monai_sasm.io.nifti.export import export, on_nifti_axes
from monai_sasm.io.nifti.names import SUFFIXES as NIFTI
from monai_sasm.io.volume import LPS_TO_RAS, Volume
from monai_sasm.types import Modality

NRRD = (".nrrd", ".seg.nrrd")


@contextmanager
def new_file(extension: str) -> Iterator[Path]:
    """A file with that ending among the temporary ones, for the caller to keep; removed when writing it fails."""
    handle, name = tempfile.mkstemp(suffix=extension, prefix="sasm-")
    os.close(handle)
    try:
        yield Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def check_extension(extension: str | None, modality: Modality, volumes: int = 1) -> None:
    """Refuse an extension in which a result cannot be written, before any work is done.

    Args:
        extension: as asked for; ``None`` is always right.
        modality: of the image.
        volumes: how many volumes a CT or MR image holds.

    Raises:
        ValueError: neither NIfTI nor NRRD for CT and MR; NIfTI for a photo; NRRD for several volumes.
    """
    allowed = NRRD if modality.profile.is_picture else NIFTI if volumes > 1 else (*NIFTI, *NRRD)
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
    photo = volume.modality.profile.is_picture
    check_extension(extension, volume.modality, 1 if photo else len(volume.array))
    with new_file(extension or (target_for(volume, Path()).suffix if photo else NIFTI[0])) as path:
        values = volume.array if len(volume.array) > 1 else volume.array[0]
        if photo and extension:
            pixels = np.ascontiguousarray(volume.array.transpose(1, 2, 0))
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels, isVector=True), str(path))
        elif photo:
            write(volume, path, done, overwrite=True)
        elif extension in NRRD:
            _write_nrrd(*on_nifti_axes(values, volume), path)
        else:
            export(values, volume, path, overwrite=True)
    return path


def write_labels(labels: NDArray[np.uint8], affine: NDArray[np.float64], extension: str | None) -> Path:
    """Write a label map ``(i, j, k)`` with its affine, voxel to RAS mm, as uint8; ``.nii.gz`` when ``None``."""
    check_extension(extension, Modality.MR)
    with new_file(extension or NIFTI[0]) as path:
        if extension in NRRD:
            _write_nrrd(labels, affine, path)
        else:
            nibabel.save(nibabel.Nifti1Image(labels, affine), path)
    return path


def _write_nrrd(values: NDArray[Any], affine: NDArray[np.float64], path: Path) -> None:
    """Write ``(i, j, k)`` as NRRD, in LPS mm; sheared axes are kept."""
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    SimpleITK.WriteImage(image, str(path))
