"""Float32 NIfTI files of volumes and maps that did not come from a NIfTI file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.nifti.names import is_nifti_name, sidecar_of, voxels_of
from monai_sasm.io.nifti.read import NiftiSource
from monai_sasm.io.nifti.write import write_stream, write_with_sidecar
from monai_sasm.io.paged import paging
from monai_sasm.io.volume import Volume, files_of

_ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT


def export(array: NDArray[np.float32], like: Volume, path: Path, *, overwrite: bool = False) -> Path:
    """Write ``array`` on the grid of ``like``.

    Axes in the order (slice, row, column), as of DICOM volumes, are reversed on the way, to (column, row,
    slice), and the affine with them, because that is how NIfTI viewers expect them; each voxel keeps its place.

    Args:
        array: ``(*spatial)`` or ``(K, *spatial)`` with the spatial shape of ``like``; ``K`` becomes the fourth axis.
        like: gives geometry and orientation codes; of a NIfTI file, unit and, where ``K`` counts its time points, step
            and start of time, too.
        path: ``.nii`` or ``.nii.gz``.

    Raises:
        FileExistsError: the target exists and ``overwrite`` is off.
        RefusedError: the slices lie at uneven steps.
        ValueError: wrong suffix or shape, or ``like`` has no affine.
    """
    header, parts = _encoded(array, like, path)
    guard_target(path, overwrite=overwrite)
    with replacing(path, overwrite=overwrite, sources=files_of(like)) as file:
        write_stream(file, header, parts, compressed=path.name.lower().endswith(".gz"))
    return path


def export_image(volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool = False) -> list[Path]:
    """Write an image that did not come from a NIfTI file, as float32, with a JSON sidecar that says what was done.

    Returns:
        The image and the sidecar.

    Raises:
        FileExistsError: a target exists and ``overwrite`` is off.
        RefusedError: the slices lie at uneven steps.
        ValueError: wrong suffix, NaN or infinite voxels, or the volume has no affine.
    """
    if not volume.is_finite:
        raise ValueError("a volume to be written must be finite, got NaN or infinite voxels; check the restoration")
    header, parts = _encoded(volume.array if len(volume.array) > 1 else volume.array[0], volume, path)
    own = getattr(volume.source, "path", None)
    for target in {path, voxels_of(path), sidecar_of(path)}:
        guard_target(target, overwrite=overwrite, sources=() if own is None else (own,))
    record = {} if own is None else {"Sources": [own.name]}
    return write_with_sidecar(path, header, parts, derivation, record, overwrite=overwrite, files=files_of(volume))


def _encoded(array: NDArray[np.float32], like: Volume, path: Path) -> tuple[Any, Iterator[NDArray[np.float32]]]:
    """Header and slices of a file; see :func:`export`."""
    import nibabel

    if not is_nifti_name(path):
        raise ValueError(f"medical volumes and maps are written as .nii or .nii.gz, got {path.name}")
    values, affine = on_nifti_axes(array, like)
    header = nibabel.Nifti1Image(values, affine).header.copy()
    code = _orientation_code(like)
    header.set_sform(affine, code)
    header.set_qform(affine, code if np.allclose(header.get_qform(), affine, atol=1e-3) else 0)  # no shear in a qform
    _keep_qform(header, like)
    _set_time(header, like)
    header.set_slope_inter(1, 0)
    return header, paging(values[..., index] for index in range(values.shape[-1]))


def on_nifti_axes(array: NDArray[np.float32], like: Volume) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """``array`` in the order of axes that viewers expect, and the affine that goes with it; see :func:`export`.

    Returns:
        ``(i, j, k)`` or ``(i, j, k, K)``, and ``(4, 4)`` voxel to RAS mm.

    Raises:
        RefusedError: the slices lie at uneven steps.
        ValueError: wrong shape, or ``like`` has no affine.
    """
    if like.affine is None:
        way = "write a PNG" if like.modality.profile.is_picture else "give it by affine=, (4, 4) voxel index to RAS mm"
        raise ValueError(f"a NIfTI file needs the affine of its image, got a volume without a place in space; {way}")
    if like.source is not None and not like.source.at_equal_steps:
        raise RefusedError(
            "slices at uneven steps have no affine, which NIfTI and maps need; write DICOM (a folder "
            "as output, without maps), or resample the series to equal steps first"
        )
    spatial = like.array.shape[1:]
    if array.shape != spatial and array.shape[1:] != spatial:
        raise ValueError(f"expected shape {spatial} or (K, *{spatial}) as the image has, got {array.shape}")
    channels = array.reshape(-1, *spatial)
    affine = like.affine.copy()
    if like.source is None or not like.source.keeps_axes:
        channels = channels.transpose(0, *range(len(spatial), 0, -1))
        affine[:, : len(spatial)] = affine[:, len(spatial) - 1 :: -1]
    volume = channels.reshape(*channels.shape, *(1,) * (3 - len(spatial)))  # (K, i, j, k)
    return np.asfortranarray(np.moveaxis(volume, 0, 3) if len(volume) > 1 else volume[0], dtype=np.float32), affine


def _orientation_code(like: Volume) -> int:
    if not isinstance(like.source, NiftiSource):
        return _SCANNER
    header = like.source.header
    return int(header["sform_code"]) or int(header["qform_code"]) or _ALIGNED


def _keep_qform(header: Any, like: Volume) -> None:
    """The qform of a NIfTI file that has both, for viewers that go by it: it may be another one than the sform."""
    if isinstance(like.source, NiftiSource) and like.source.header.get_xyzt_units()[0] in ("mm", "unknown"):
        source = like.source.header
        if source["qform_code"] > 0 and source["sform_code"] > 0:
            header.set_qform(source.get_qform(), int(source["qform_code"]))


def _set_time(header: Any, like: Volume) -> None:
    """Lengths in mm; time as the source has it, if it is a NIfTI file."""
    if not isinstance(like.source, NiftiSource):
        header.set_xyzt_units("mm")
        return
    source = like.source.header
    header.set_xyzt_units("mm", source.get_xyzt_units()[1])
    count = len(like.array)
    if count > 1 and header.get_data_shape()[3:] == (count,):
        header["pixdim"][4], header["toffset"] = source["pixdim"][4], source["toffset"]
