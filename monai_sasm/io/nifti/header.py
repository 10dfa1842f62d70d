"""Headers of NIfTI-1 and NIfTI-2 files: checked before any voxel is read."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.meaning import LABELS
from monai_sasm.io.nifti.names import stem
from monai_sasm.io.nifti.stored_values import StoredScaling
from monai_sasm.io.silence import quiet
from monai_sasm.io.volume import thickest_axis

_GZIP_RATIO = 1032  # no deflate stream expands further (zlib technical details)
_MAX_EXTENSIONS = 2**24  # bytes; DICOM headers and processing histories inside of NIfTI stay far below
_MAX_MAT = 2**16  # bytes; SPM writes some hundred, and packed ones unpack to a thousand times as many at most
_LABEL_INTENTS = (1002, 1003)  # NIFTI_INTENT_LABEL, NIFTI_INTENT_NEURONAME
_STATISTICS = range(2, 25)  # NIFTI_INTENT_CORREL to NIFTI_INTENT_LOG10PVAL


def is_nifti(head: bytes) -> bool:
    """Whether the first 348 (uncompressed) bytes of a file are a NIfTI-1, NIfTI-2 or Analyze header."""
    sizes = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
    return len(head) >= 348 and head[:4] in sizes


def open_plain(path: Path) -> BinaryIO:
    """The file, decompressed when it is gzip (by its first bytes, not by its name)."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")  # type: ignore[return-value]


def read_header(path: Path) -> Any:
    """The nibabel header of a NIfTI file or pair, with its extensions; one like it for Analyze, placed by a ``.mat``.

    Raises:
        RefusedError: it is damaged.
    """
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with open_plain(path) as file, quiet():  # nibabel's, of extensions
            head = file.read(544)
            file.seek(0)
            if len(head) < {b"n+2": 544, b"ni2": 540}.get(head[4:7], 348):
                raise UnreadableError("the file ends inside the NIfTI header: it is damaged, export it again")
            if head[4:7] in (b"n+2", b"ni2"):
                kind, magic = "Nifti2Header", head[4:7]
            else:
                kind, magic = "Nifti1Header", head[344:347]
            if magic in (b"ni1", b"ni2"):
                pair = type(as_kind(getattr(nibabel, kind)(check=False), single=False))
                return pair.from_fileobj(io.BytesIO(file.read(_MAX_EXTENSIONS)), check=False)
            if magic not in (b"n+1", b"n+2"):
                return _from_analyze(head[:348], _spm_affine(path))
            bare = getattr(nibabel, kind)
            offset = bare(head[: bare.sizeof_hdr], check=False).get_data_offset()
            _check_offset(offset)
            # a copy in memory, for nibabel allocates what an extension claims to be long before it looks for it
            header = bare.from_fileobj(io.BytesIO(file.read(max(offset, len(head)))), check=False)
            if header.get_data_offset() < header.single_vox_offset + header.extensions.get_sizeondisk():
                raise UnreadableError("vox_offset points into the header: the file is damaged, export it again")
            return header
    except RefusedError:
        raise
    except (OSError, EOFError, ValueError, OverflowError, zlib.error, HeaderDataError, WrapStructError) as error:
        raise UnreadableError(f"the NIfTI header is damaged ({type(error).__name__}): export the file again") from error


def as_kind(header: Any, single: bool) -> Any:
    """The same header for one file, or for a pair."""
    import nibabel

    if header.is_single == single:
        return header
    version = "Nifti2" if header.sizeof_hdr == 540 else "Nifti1"
    kind = getattr(getattr(nibabel, version.lower()), f"{version}Header" if single else f"{version}PairHeader")
    other = kind(header.binaryblock, header.endianness, check=False, extensions=header.extensions)
    other["magic"] = kind.single_magic if single else kind.pair_magic
    other["vox_offset"] = kind.single_vox_offset + header.extensions.get_sizeondisk() if single else 0
    return other


def _from_analyze(head: bytes, affine: NDArray[np.float64] | None) -> Any:
    """A NIfTI header that says what an Analyze 7.5 header does, with the scaling of SPM.

    It knows no orientation itself; ``affine`` is from :func:`_spm_affine`.
    """
    import nibabel

    old = nibabel.spm99analyze.Spm99AnalyzeHeader(head, check=False)
    new = nibabel.nifti1.Nifti1PairHeader(endianness=old.endianness)
    try:
        new.set_data_dtype(old.get_data_dtype())
    except KeyError as unknown:
        raise UnreadableError(f"its header names no known type of numbers (code {unknown}): damaged") from None
    new.set_data_shape(old.get_data_shape())
    new.set_zooms(old.get_zooms())
    new["descrip"], new["vox_offset"] = old["descrip"], max(0, float(old["vox_offset"]))
    slope = float(old["scl_slope"])
    if slope not in (0, 1) and math.isfinite(slope):
        new.set_slope_inter(slope, 0)
    if affine is not None:
        new.set_sform(affine, code="aligned")
    return new


def _spm_affine(path: Path) -> NDArray[np.float64] | None:
    """``(4, 4)`` voxel index from 0 to RAS mm, of the ``.mat`` file that SPM keeps beside an Analyze header.

    ``mat`` is to the space of SPM, which is RAS; ``M``, of SPM 99, before a flip of x. Both count voxels from 1.
    """
    place = path.with_name(f"{stem(path)}.mat")
    try:
        from scipy.io import loadmat  # of the extras; without it there is a note

        if place.stat().st_size > _MAX_MAT:
            return None
        held = loadmat(io.BytesIO(place.read_bytes()), variable_names=("mat", "M"))
        known = held["mat"] if "mat" in held else np.diag([-1.0, 1, 1, 1]) @ held["M"]
        first = np.asarray(known, np.float64).reshape(4, 4, -1)[:, :, 0]  # of a series one for each time point
    except Exception:  # scipy raises whatever the damage provokes; no file, no orientation
        return None
    first = first @ [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    usable = np.isfinite(first).all() and np.linalg.matrix_rank(first) == 4 and (first[3] == [0, 0, 0, 1]).all()
    return first if usable else None


def _check_offset(offset: int) -> None:
    """Before the extensions that stand ahead of the voxels are read: packed, they may be of any size."""
    if offset > _MAX_EXTENSIONS:
        raise UnreadableError(
            f"vox_offset announces {offset} bytes of extensions, of which {_MAX_EXTENSIONS} at most are read: "
            "the file is damaged, export it again"
        )


def checked_shape(header: Any, path: Path) -> tuple[int, ...]:
    """``(i, j)``, ``(i, j, k)`` or ``(i, j, k, t)``, after every check that the header alone allows.

    Args:
        header: see :func:`read_header`.
        path: of the file with the voxels.
    """
    import nibabel

    try:
        shape = tuple(int(size) for size in header.get_data_shape())
        dtype = header.get_data_dtype()
    except (nibabel.spatialimages.HeaderDataError, KeyError, ValueError) as error:
        raise RefusedError("the NIfTI header holds an unknown data type: convert the file") from error
    while len(shape) > 3 and shape[-1] in (0, 1):  # niftilib, too, reads 0 as 1
        shape = shape[:-1]
    if len(shape) > 4:
        raise RefusedError(f"a {len(shape)}-D NIfTI holds vectors, not an image; split it into volumes")
    if len(shape) < 2 or min(shape) < 1 or sum(size > 1 for size in shape[:3]) < 2:
        raise RefusedError(f"an image needs two axes longer than 1, got shape {shape}")
    if dtype.names is not None:
        raise RefusedError("an RGB NIfTI is a picture of an image; give the original grey volume")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise RefusedError(f"NIfTI data type {header['datatype']} is not real-valued numbers; convert to float32")
    scaling_of(header)
    affine_mm(header)
    declared = math.prod(shape) * dtype.itemsize + header.get_data_offset()
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadableError("the .img file with the voxels is not beside its .hdr: copy both") from error
    with open(path, "rb") as file:
        largest = size * _GZIP_RATIO if file.read(2) == b"\x1f\x8b" else size
    if declared > largest:
        raise UnreadableError(
            f"the header promises {declared} bytes, the file holds {largest} at most: it is cut short"
        )
    return shape


def scaling_of(header: Any) -> StoredScaling:
    """Slope and intercept of a header."""
    import nibabel

    try:
        slope, intercept = header.get_slope_inter()
    except nibabel.spatialimages.HeaderDataError as error:
        raise UnreadableError("scl_slope or scl_inter is not a number: repair the header") from error
    if slope is None or (slope == 1 and not intercept):
        return StoredScaling()
    return StoredScaling(float(slope), float(intercept or 0.0))


def affine_mm(header: Any) -> NDArray[np.float64]:
    """``(4, 4)`` voxel index to RAS mm, whatever unit the header is in."""
    import nibabel

    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
        unit = header.get_xyzt_units()[0]
    except (nibabel.spatialimages.HeaderDataError, KeyError, ValueError) as error:
        raise UnreadableError("qform, sform or units of the NIfTI header are not valid: repair the header") from error
    for axis in range(3):  # without a step along an axis of one voxel: of 2-D files pixdim[3] is undefined
        if not affine[:3, axis].any() and header.get_data_shape()[axis : axis + 1] in ((), (1,)):
            normal = np.cross(affine[:3, axis - 2], affine[:3, axis - 1])
            affine[:3, axis] = normal / (np.linalg.norm(normal) or 1.0)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine) < 4:
        raise UnreadableError("the NIfTI affine has no inverse: repair the header (sform or qform)")
    affine[:3] *= {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    return affine


def slice_axis_of(header: Any, shape: tuple[int, ...]) -> int | None:
    """Which axis counts the slices: that of one slice, the one that the header states, or a clearly thicker one."""
    if len(shape) < 3:
        return None
    if 1 in shape[:3]:
        return shape.index(1)
    try:
        stated = header.get_dim_info()[2]
    except (KeyError, ValueError):
        stated = None
    return thickest_axis(affine_mm(header)) if stated is None else int(stated)


def slice_count(shape: tuple[int, ...], slice_axis: int | None) -> int:
    """How many slices an image of this shape has."""
    return 1 if slice_axis is None else shape[slice_axis]


def intended(header: Any) -> str | None:
    """What the intent code says that a file is instead of an image; ``None`` for an image."""
    intent = int(header["intent_code"])
    if intent in _LABEL_INTENTS:
        return LABELS
    return "a parameter map" if intent in _STATISTICS else None


def notes_on(header: Any, path: Path) -> tuple[str, ...]:
    """What a user should know about the header of a file."""
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        beside = path.with_name(f"{stem(path)}.mat")
        if not header.is_single and beside.is_file():
            return (
                "the header gives no orientation, and the .mat file of SPM beside it was not read (it needs SciPy); "
                "left and right are not known",
            )
        return ("the header gives no orientation; left and right are not known",)
    return ()
