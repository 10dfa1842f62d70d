"""Writing NIfTI: the source header comes back untouched, unchanged voxels come back bit for bit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.nifti.header import as_kind
from monai_sasm.io.nifti.names import is_nifti_name, sidecar_of, voxels_of
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
        The image and the sidecar; the voxels of a pair last.

    Raises:
        FileExistsError: a target exists and ``overwrite`` is off.
        ValueError: wrong suffix, the target is the source, or the volume has NaN or infinite voxels.
    """
    source: NiftiSource = volume.source
    if not is_nifti_name(path):
        raise ValueError(f"a NIfTI volume is written as .nii or .nii.gz, got {path.name}")
    sources = (*source.files, sidecar_of(source.path))
    for target in {path, voxels_of(path), sidecar_of(path)}:
        guard_target(target, overwrite=overwrite, sources=sources)
    array = np.moveaxis(volume.array, 0, 3) if volume.array.shape[0] > 1 else volume.array[0]
    scaling, clipped = fit(array, source.stored)
    header = source.header
    if scaling != source.stored.scaling:
        header = header.copy()
        header.set_slope_inter(scaling.slope, scaling.intercept)
    parts = numbers(array, source.stored, scaling)
    record = {"Sources": [source.path.name], "ClippedVoxels": clipped}
    return write_with_sidecar(path, header, parts, derivation, record, overwrite=overwrite, files=source.files)


def write_with_sidecar(
    path: Path,
    header: Any,
    parts: Iterable[NDArray[Any]],
    derivation: Derivation,
    record: dict[str, Any],
    *,
    overwrite: bool,
    files: tuple[Path, ...],
) -> list[Path]:
    """Write a NIfTI file and the JSON file beside it, which says what was done; both appear when both are whole.

    Args:
        path: ``.nii`` or ``.nii.gz``; or ``.hdr``, for a pair with ``.img``.
        header: see :func:`write_stream`.
        parts: see :func:`write_stream`.
        derivation: what was done.
        record: further entries of the sidecar.
        overwrite: replace files that are there.
        files: that the image was made of.

    Returns:
        The image and the sidecar.
    """
    voxels = voxels_of(path)
    header = as_kind(header, single=voxels == path)
    compressed = path.name.lower().endswith(".gz")
    made = partial(replacing, overwrite=overwrite, sources=files)
    with made(sidecar_of(path)) as beside, made(path) as file:
        beside.write(record_of(derivation, record))
        if voxels == path:
            write_stream(file, header, parts, compressed=compressed)
            return [path, sidecar_of(path)]
        write_stream(file, header, (), compressed=compressed)
        with made(voxels) as other:
            write_stream(other, None, parts, compressed=compressed)
    return [path, sidecar_of(path), voxels]


def record_of(derivation: Derivation, record: dict[str, Any]) -> bytes:
    """The JSON text of a sidecar: what was done, and further entries."""
    record = record | {
        "GeneratedBy": [{"Name": derivation.software, "Version": derivation.version}],
        "Description": derivation.description,
        "Models": dict(derivation.models),
        "Parameters": {key: str(value) for key, value in derivation.parameters.items()},
    }
    return json.dumps(record, indent=2, sort_keys=True).encode() + b"\n"


def write_stream(file: BinaryIO, header: Any, parts: Iterable[NDArray[Any]], *, compressed: bool) -> None:
    """Header, extensions and numbers of a NIfTI file; nibabel's image writer would edit the header.

    Args:
        file: receives them.
        header: nibabel header, with its extensions; ``None`` for the file of a pair that has none.
        parts: the numbers in the order of the file, each part written in Fortran order; none for the other file.
        compressed: as gzip.
    """
    if compressed:
        # no name, no time: the same input gives the same file
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
            write_stream(stream, header, parts, compressed=False)  # type: ignore[arg-type]
        return
    if header is not None:
        header.write_to(file)
        file.write(b"\0" * (header.get_data_offset() - file.tell()))
    for part in parts:
        file.write(part.tobytes(order="F"))
