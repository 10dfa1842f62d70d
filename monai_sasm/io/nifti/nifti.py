"""NIfTI-1 and NIfTI-2 files: the source header comes back untouched, unchanged voxels come back bit for bit."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.io.commit import guard_target, replacing
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.memory import refuse_if_too_large
from monai_sasm.io.nifti.stored_values import Decoder, StoredScaling, StoredValues, fit, numbers, slabs
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

SUFFIXES = (".nii", ".nii.gz")
THICK = 1.2  # a voxel axis this much longer than the next one is taken for the slice axis
_GZIP_RATIO = 1032  # no deflate stream expands further (zlib technical details)
_GZIP_LEVEL = 1  # as the neuroimaging tools do: images hardly get smaller beyond it, only slower
_FLOAT32 = 4  # bytes
_MAX_EXTENSIONS = 2**24  # bytes; DICOM headers and processing histories inside of NIfTI stay far below
_LABEL_INTENT = 1002  # NIFTI_INTENT_LABEL
_BIDS_MODALITY = re.compile(
    r"_(?:(?P<MR>T[12]w|T2starw|PDw|PDT2|FLAIR|inplaneT[12]|angio|bold|sbref|dwi|epi|asl|m0scan)|(?P<CT>ct))$",
    re.IGNORECASE,
)
_BIDS_LABELS = re.compile(r"_(dseg|probseg|mask)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class NiftiSource:
    """What the NIfTI writer needs to give a file back.

    Args:
        path: the file that was read.
        header: nibabel header with its extensions, exactly as on disk.
        stored: type, scaling and, where float32 is not enough, the numbers of the file.
    """

    path: Path
    header: Any
    stored: StoredValues


def is_nifti(head: bytes) -> bool:
    """Whether the first 348 (uncompressed) bytes of a file are a NIfTI-1, NIfTI-2 or Analyze header."""
    sizes = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
    return len(head) >= 348 and head[:4] in sizes


def open_plain(path: Path) -> BinaryIO:
    """The file, decompressed when it is gzip (by its first bytes, not by its name)."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")  # type: ignore[return-value]


def inspect(path: Path, modality: Modality | None = None, name: str | None = None) -> Entry:
    """Look at the header only. Never raises for a bad file: the entry then carries the reason.

    Args:
        path: a NIfTI file.
        modality: CT or MR; without it, only a BIDS suffix in the file name decides, nothing is guessed.
        name: label of the entry; the file's stem by default.
    """
    refusal, geometry = None, "unknown"
    notes: tuple[str, ...] = ()
    known = modality or bids_modality(path)
    try:
        header = _read_header(path)
        shape = _checked_shape(header, path)
        notes = _notes(header)
        geometry = "single" if _slice_count(shape, _slice_axis(header, shape)) == 1 else "regular"
        if _BIDS_LABELS.search(stem(path)):
            raise RefusedError("a segmentation or mask by its BIDS suffix, not an image: nothing to restore")
        if known not in (Modality.CT, Modality.MR):
            raise RefusedError("a NIfTI file does not say what made it: say --modality CT or MR")
    except RefusedError as error:
        refusal = str(error)
    load = partial(read, path, known, name or stem(path))
    return Entry(name or stem(path), "nifti", (path,), known, geometry, refusal, notes, load)


def bids_modality(path: Path) -> Modality | None:
    """CT or MR from a BIDS suffix such as ``_T1w`` or ``_ct``; ``None`` without one."""
    match = _BIDS_MODALITY.search(stem(path))
    return None if match is None else Modality.MR if match["MR"] else Modality.CT


def stem(path: Path) -> str:
    """File name without ``.nii`` or ``.nii.gz``, or without its last suffix."""
    return re.sub(r"\.nii(\.gz)?$|\.[^.]*$", "", path.name, flags=re.IGNORECASE)


def read(path: Path, modality: Modality | None, name: str | None = None) -> Volume:
    """Read one NIfTI file.

    Returns:
        ``array`` float32 ``(C, i, j[, k])`` in HU or MR units, ``C`` counting time points; ``affine`` voxel to RAS
        mm. Voxels that are NaN or infinite are replaced by the finite minimum and come back when written.

    Raises:
        RefusedError: not an image this house can process rightly (see the message).
    """
    if modality not in (Modality.CT, Modality.MR):
        raise RefusedError("a NIfTI file does not say what made it: say --modality CT or MR")
    header = _read_header(path)
    shape = _checked_shape(header, path)
    dtype = header.get_data_dtype()
    kept = dtype.itemsize if dtype.itemsize > 2 else 0  # where float32 may not be enough to give the numbers back
    refuse_if_too_large(math.prod(shape) * (_FLOAT32 + kept))
    decoder = _decode(path, header, shape)
    notes = _notes(header)
    if decoder.unreadable:
        if decoder.unreadable == math.prod(shape):
            raise RefusedError("all voxels are NaN or infinite: nothing to restore")
        notes += (f"{decoder.unreadable} NaN or infinite voxels kept aside",)
    source = NiftiSource(path, header, decoder.stored())
    array = decoder.array
    slice_axis = _slice_axis(header, shape)
    return Volume(
        array=np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None],
        modality=modality,
        affine=_affine_mm(header),
        slice_axis=slice_axis,
        name=name or stem(path),
        source=source,
        geometry="single" if _slice_count(shape, slice_axis) == 1 else "regular",
        notes=notes,
    )


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
    if not path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"a NIfTI volume is written as .nii or .nii.gz, got {path.name}")
    sidecar = path.with_name(stem(path) + ".json")
    guard_target(path, overwrite=overwrite, sources=(source.path,))
    guard_target(sidecar, overwrite=overwrite, sources=(source.path.with_name(stem(source.path) + ".json"),))
    array = np.moveaxis(volume.array, 0, 3) if volume.array.shape[0] > 1 else volume.array[0]
    scaling, clipped = fit(array, source.stored)
    header = source.header
    if scaling != source.stored.scaling:
        header = header.copy()
        header.set_slope_inter(scaling.slope, scaling.intercept)
    record = {
        "Sources": [source.path.name],
        "GeneratedBy": [{"Name": derivation.software, "Version": derivation.version}],
        "Description": derivation.description,
        "Models": dict(derivation.models),
        "Parameters": {key: str(value) for key, value in derivation.parameters.items()},
        "ClippedVoxels": clipped,
    }
    with replacing(sidecar) as file:
        file.write(json.dumps(record, indent=2, sort_keys=True).encode() + b"\n")
    with replacing(path) as file:
        write_stream(file, header, numbers(array, source.stored, scaling), compressed=path.name.lower().endswith(".gz"))
    return [path, sidecar]


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


def _read_header(path: Path) -> Any:
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with open_plain(path) as file:
            head = file.read(544)
            file.seek(0)
            if len(head) < 348 or (head[4:7] in (b"n+2", b"ni2") and len(head) < 544):
                raise RefusedError("the file ends inside the NIfTI header: it is damaged, export it again")
            if head[4:7] in (b"n+2", b"ni2"):
                kind, magic = "Nifti2Header", head[4:7]
            else:
                kind, magic = "Nifti1Header", head[344:347]
            if magic in (b"ni1", b"ni2"):
                raise RefusedError("a NIfTI pair (.hdr and .img): convert it to one .nii.gz file")
            if magic not in (b"n+1", b"n+2"):
                raise RefusedError("an Analyze header knows no left and right: convert it to NIfTI and check the sides")
            bare = getattr(nibabel, kind)
            offset = bare(head[: bare.sizeof_hdr], check=False).get_data_offset()
            _check_offset(offset)
            # a copy in memory, for nibabel allocates what an extension claims to be long before it looks for it
            header = bare.from_fileobj(io.BytesIO(file.read(max(offset, len(head)))), check=False)
            if header.get_data_offset() < header.single_vox_offset + header.extensions.get_sizeondisk():
                raise RefusedError("vox_offset points into the header: the file is damaged, export it again")
            return header
    except RefusedError:
        raise
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, HeaderDataError, WrapStructError) as error:
        raise RefusedError(f"the NIfTI header is damaged ({type(error).__name__}): export the file again") from error


def _check_offset(offset: int) -> None:
    """Before the extensions that stand ahead of the voxels are read: packed, they may be of any size."""
    if offset > _MAX_EXTENSIONS:
        raise RefusedError(
            f"vox_offset announces {offset} bytes of extensions, of which {_MAX_EXTENSIONS} at most are read: "
            "the file is damaged, export it again"
        )


def _checked_shape(header: Any, path: Path) -> tuple[int, ...]:
    """``(i, j)``, ``(i, j, k)`` or ``(i, j, k, t)``, after every check that the header alone allows."""
    import nibabel

    try:
        shape = tuple(int(size) for size in header.get_data_shape())
        dtype = header.get_data_dtype()
    except (nibabel.spatialimages.HeaderDataError, KeyError, ValueError) as error:
        raise RefusedError("the NIfTI header holds an unknown data type: convert the file") from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4:
        raise RefusedError(f"a {len(shape)}-D NIfTI holds vectors, not an image; split it into volumes")
    if len(shape) < 2 or min(shape) < 1 or sum(size > 1 for size in shape[:3]) < 2:
        raise RefusedError(f"an image needs two axes longer than 1, got shape {shape}")
    if dtype.names is not None:
        raise RefusedError("an RGB NIfTI is a picture of an image; give the original grey volume")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise RefusedError(f"NIfTI data type {header['datatype']} is not real-valued numbers; convert to float32")
    if int(header["intent_code"]) == _LABEL_INTENT:
        raise RefusedError("a label map by its header, not an image: nothing to restore")
    _scaling(header)
    _affine_mm(header)
    declared = math.prod(shape) * dtype.itemsize + header.get_data_offset()
    size = path.stat().st_size
    with open(path, "rb") as file:
        largest = size * _GZIP_RATIO if file.read(2) == b"\x1f\x8b" else size
    if declared > largest:
        raise RefusedError(f"the header promises {declared} bytes, the file holds {largest} at most: it is cut short")
    return shape


def _scaling(header: Any) -> StoredScaling:
    import nibabel

    try:
        slope, intercept = header.get_slope_inter()
    except nibabel.spatialimages.HeaderDataError as error:
        raise RefusedError("scl_slope or scl_inter is not a number: repair the header") from error
    if slope is None or (slope == 1 and not intercept):
        return StoredScaling()
    return StoredScaling(float(slope), float(intercept or 0.0))


def _affine_mm(header: Any) -> NDArray[np.float64]:
    import nibabel

    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        unit = header.get_xyzt_units()[0]
    except (nibabel.spatialimages.HeaderDataError, KeyError, ValueError) as error:
        raise RefusedError("qform, sform or units of the NIfTI header are not valid: repair the header") from error
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise RefusedError("the NIfTI affine has no inverse: repair the header (sform or qform)")
    affine[:3] *= {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    return affine


def _slice_axis(header: Any, shape: tuple[int, ...]) -> int | None:
    if len(shape) < 3:
        return None
    if 1 in shape[:3]:
        return shape.index(1)
    try:
        stated = header.get_dim_info()[2]
    except (KeyError, ValueError):
        stated = None
    if stated is not None:
        return int(stated)
    spacing = np.linalg.norm(_affine_mm(header)[:3, :3], axis=0)
    thickest = int(np.argmax(spacing))
    return thickest if spacing[thickest] > THICK * np.sort(spacing)[1] else 2


def _slice_count(shape: tuple[int, ...], slice_axis: int | None) -> int:
    return 1 if slice_axis is None else shape[slice_axis]


def _notes(header: Any) -> tuple[str, ...]:
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        return ("the header gives no orientation; left and right are not known",)
    return ()


def _decode(path: Path, header: Any, shape: tuple[int, ...]) -> Decoder:
    """The voxels, read and decoded slab by slab: the numbers of the file are never in memory as a whole."""
    dtype = header.get_data_dtype()
    decoder = Decoder(shape, dtype, _scaling(header))
    try:
        with open_plain(path) as file:
            file.seek(header.get_data_offset())
            for where in slabs(shape):
                raw = np.empty((*shape[:2], where.stop - where.start), dtype, order="F")
                _fill(memoryview(raw.reshape(-1, order="F").view(np.uint8)), file)  # type: ignore[arg-type]
                decoder.take(where, raw)
    except (OSError, EOFError, zlib.error) as error:
        raise RefusedError("the voxels end early or are damaged: copy or export the file again") from error
    return decoder


def _fill(buffer: memoryview, file: BinaryIO) -> None:
    filled = 0
    while filled < len(buffer):
        count = file.readinto(buffer[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        filled += count
