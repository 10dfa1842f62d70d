"""Float32 NIfTI files of volumes and maps that did not come from a NIfTI file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.nifti.nifti import SUFFIXES, NiftiSource, write_stream
from monai_sasm.io.volume import Volume

_ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT


def export(array: NDArray[np.float32], like: Volume, path: Path, *, overwrite: bool = False) -> Path:
    """Write ``array`` on the grid of ``like``.

    Axes of volumes that did not come from NIfTI are reversed on the way, from (slice, row, column) to (column, row,
    slice), and the affine with them, because that is how NIfTI viewers expect them; each voxel keeps its place.

    Args:
        array: ``(*spatial)`` or ``(K, *spatial)`` with the spatial shape of ``like``; ``K`` becomes the fourth axis.
        like: gives geometry, time unit and orientation codes.
        path: ``.nii`` or ``.nii.gz``.

    Raises:
        FileExistsError: the target exists and ``overwrite`` is off.
        ValueError: wrong suffix or shape, or ``like`` has no affine.
    """
    import nibabel

    if not path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"medical volumes and maps are written as .nii or .nii.gz, got {path.name}")
    values, affine = on_nifti_axes(array, like)
    guard_target(path, overwrite=overwrite)
    header = nibabel.Nifti1Image(values, affine).header.copy()
    code = _orientation_code(like)
    header.set_sform(affine, code)
    header.set_qform(affine, code if np.allclose(header.get_qform(), affine, atol=1e-3) else 0)  # no shear in a qform
    header.set_xyzt_units("mm")
    header.set_slope_inter(1, 0)
    with replacing(path) as file:
        parts = (values[..., index] for index in range(values.shape[-1]))
        write_stream(file, header, parts, compressed=path.name.lower().endswith(".gz"))
    return path


def on_nifti_axes(array: NDArray[np.float32], like: Volume) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """``array`` in the order of axes that viewers expect, and the affine that goes with it; see :func:`export`.

    Returns:
        ``(i, j, k)`` or ``(i, j, k, K)``, and ``(4, 4)`` voxel to RAS mm.

    Raises:
        ValueError: wrong shape, or ``like`` has no affine.
    """
    if like.affine is None:
        raise ValueError("a NIfTI file needs the affine of its image, got a volume without one; write a PNG")
    spatial = like.array.shape[1:]
    if array.shape != spatial and array.shape[1:] != spatial:
        raise ValueError(f"expected shape {spatial} or (K, *{spatial}) as the image has, got {array.shape}")
    channels = array.reshape(-1, *spatial)
    affine = like.affine.copy()
    if not isinstance(like.source, NiftiSource):
        channels = channels.transpose(0, *range(len(spatial), 0, -1))
        affine[:, : len(spatial)] = affine[:, len(spatial) - 1 :: -1]
    volume = channels.reshape(*channels.shape, *(1,) * (3 - len(spatial)))  # (K, i, j, k)
    return np.asfortranarray(np.moveaxis(volume, 0, 3) if len(volume) > 1 else volume[0], dtype=np.float32), affine


def _orientation_code(like: Volume) -> int:
    if not isinstance(like.source, NiftiSource):
        return _SCANNER
    header = like.source.header
    return int(header["sform_code"]) or int(header["qform_code"]) or _ALIGNED
