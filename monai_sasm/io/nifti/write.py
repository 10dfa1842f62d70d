"""Writing NIfTI: the source header comes back untouched, unchanged voxels come back bit for bit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.nifti.names import is_nifti_name, stem
from monai_sasm.io.nifti.read import NiftiSource
from monai_sasm.io.nifti.stored_values import fit, numbers
from monai_sasm.io.volume import Volume

_GZIP_LEVEL = 1  # as the neuroimaging tools do: images hardly get smaller beyond it, only slower


def write(volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool = False) -> list[Path]:
    """Write a volume that :func:`read` made, with new voxels, and its sidecar ``<name>.json``.

    The header is the source's; only the scaling changes, and only when an integer type cannot hold the new values.
    Values past an end of the type that the source itself touches are clipped there (the source was saturated, or
    magnitude zero); the sidecar counts them.

    Returns:
        The image and the sidecar.

    Raises:
        FileExistsError: a target exists and ``overwrite`` is off.
        ValueError: wrong suffix, the target is the source, or the volume has NaN or infinite voxels.
    """
    source: NiftiSource = volume.source
    if not is_nifti_name(path):
        raise ValueError(f"a NIfTI volume is written as .nii or .nii.gz, got {path.name}")
    sidecar = sidecar_of(path)
    guard_target(path, overwrite=overwrite, sources=(source.path,))
    guard_target(sidecar, overwrite=overwrite, sources=(sidecar_of(source.path),))
    array = np.moveaxis(volume.array, 0, 3) if volume.array.shape[0] > 1 else volume.array[0]
    scaling, clipped = fit(array, source.stored)
    header = source.header
    if scaling != source.stored.scaling:
        header = header.copy()
        header.set_slope_inter(scaling.slope, scaling.intercept)
    parts = numbers(array, source.stored, scaling)
    record = {"Sources": [source.path.name], "ClippedVoxels": clipped}
    return write_with_sidecar(path, header, parts, derivation, record)


def write_with_sidecar(
    path: Path, header: Any, parts: Iterable[NDArray[Any]], derivation: Derivation, record: dict[str, Any]
) -> list[Path]:
    """Write a NIfTI file and the JSON file beside it, which says what was done; both appear when both are whole.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        header: see :func:`write_stream`.
        parts: see :func:`write_stream`.
        derivation: what was done.
        record: further entries of the sidecar.

    Returns:
        The image and the sidecar.
    """
    sidecar = sidecar_of(path)
    record = record | {
        "GeneratedBy": [{"Name": derivation.software, "Version": derivation.version}],
        "Description": derivation.description,
        "Models": dict(derivation.models),
        "Parameters": {key: str(value) for key, value in derivation.parameters.items()},
    }
    with replacing(sidecar) as beside, replacing(path) as file:
        write_stream(file, header, parts, compressed=path.name.lower().endswith(".gz"))
        beside.write(json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")
    return [path, sidecar]


def sidecar_of(path: Path) -> Path:
    """The JSON file beside a NIfTI file."""
    return path.with_name(f"{stem(path)}.json")


def write_stream(file: BinaryIO, header: Any, parts: Iterable[NDArray[Any]], *, compressed: bool) -> None:
    """Header, extensions and numbers of a single-file NIfTI; nibabel's image writer would edit the header.

    Args:
        file: receives them.
        header: nibabel header of a single file, with its extensions.
        parts: the numbers in the order of the file, each part written in Fortran order.
        compressed: as gzip.
    """
    if compressed:
        # no name, no time: the same input gives the same file
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
            write_stream(stream, header, parts, compressed=False)  # type: ignore[arg-type]
        return
    header.write_to(file)
    file.write(b"\0" * (header.get_data_offset() - file.tell()))
    for part in parts:
        file.write(part.tobytes(order="F"))
