"""Reading NIfTI-1, NIfTI-2 and Analyze files, with all that the writer needs to give them back."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.nifti.header import (
    affine_mm,
    checked_shape,
    notes_on,
    open_plain,
    read_header,
    scaling_of,
    slice_axis_of,
    slice_count,
)
from monai_sasm.io.nifti.names import paired, result_name, stem, voxels_of
from monai_sasm.io.nifti.stored_values import Decoder, StoredValues, slabs
from monai_sasm.io.volume import FinerSlices, Source, Volume
from monai_sasm.types import Modality


@dataclass(frozen=True, eq=False)
class NiftiSource(Source):
    """What the NIfTI writer needs to give a file back.

    Args:
        path: the file that was read.
        header: nibabel header with its extensions, exactly as on disk.
        stored: type, scaling and, where float32 is not enough, the numbers of the file.
    """

    format = "nifti"
    keeps_axes = True

    path: Path
    header: Any
    stored: StoredValues

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and that of its voxels."""
        return tuple(dict.fromkeys((self.path, voxels_of(self.path))))

    def result_name(self, name: str) -> str:
        """Its own name."""
        return result_name(self.path)

    def on_finer_slices(self, grid: FinerSlices) -> NiftiSource:
        """The header with thinner slices along one axis."""
        old, header, axis = self.header, self.header.copy(), grid.axis
        sizes, zooms = list(old.get_data_shape()), list(old.get_zooms())
        sizes[axis] = grid.thin
        zooms[axis] *= grid.old_index[axis, axis]
        header.set_data_shape(sizes)
        header.set_zooms(zooms)
        if int(old["qform_code"]):
            header.set_qform(old.get_qform() @ grid.old_index, int(old["qform_code"]))
        if int(old["sform_code"]):
            header.set_sform(old.get_sform() @ grid.old_index, int(old["sform_code"]))
        for timing in ("slice_code", "slice_start", "slice_end", "slice_duration"):
            header[timing] = 0  # when each acquired slice was measured
        # NaN and integers float32 cannot hold belonged to voxels that are no more.
        return replace(self, header=header, stored=replace(self.stored, raw=None))


def unknown_modality() -> str:
    """Why a NIfTI file is refused of which nobody says what made it."""
    choices = " or ".join(f"modality='{one}'" for one in Modality.known() if not one.profile.is_picture)
    return f"the file does not say what made it: say {choices}"


def read(path: Path, modality: Modality | None, name: str | None = None) -> Volume:
    """Read one NIfTI file.

    Returns:
        ``array`` float32 ``(C, i, j[, k])`` in HU or MR units, ``C`` counting time points; ``affine`` voxel to RAS
        mm. Voxels that are NaN or infinite are replaced by the finite minimum and come back when written.

    Raises:
        RefusedError: not an image that can be processed rightly (see the message).
    """
    if modality is None or modality.profile.is_picture:
        raise RefusedError(unknown_modality())
    header = read_header(path)
    voxels = path if header.is_single else paired(path)
    shape = checked_shape(header, voxels)
    decoder = _decode(voxels, header, shape)
    notes = notes_on(header, path)
    if decoder.unreadable:
        if decoder.unreadable == math.prod(shape):
            raise UnreadableError("all voxels are NaN or infinite: nothing to restore")
        notes += (f"{decoder.unreadable} NaN or infinite voxels kept aside",)
    source = NiftiSource(path, header, decoder.stored())
    array = decoder.array
    slice_axis = slice_axis_of(header, shape)
    return Volume(
        array=np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None],
        modality=modality,
        affine=affine_mm(header),
        slice_axis=slice_axis,
        name=name or stem(path),
        source=source,
        geometry="single" if slice_count(shape, slice_axis) == 1 else "regular",
        notes=notes,
    )


def _decode(path: Path, header: Any, shape: tuple[int, ...]) -> Decoder:
    """The voxels, read and decoded slab by slab: the numbers of the file are never in memory as a whole."""
    dtype = header.get_data_dtype()
    decoder = Decoder(shape, dtype, scaling_of(header))
    try:
        with open_plain(path) as file:
            file.seek(header.get_data_offset())
            for where in slabs(shape):
                raw = np.empty((*shape[:2], where.stop - where.start), dtype, order="F")
                fill(memoryview(raw.reshape(-1, order="F").view(np.uint8)), file)  # type: ignore[arg-type]
                decoder.take(where, raw)
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("the voxels end early or are damaged: copy or export the file again") from error
    return decoder


def fill(buffer: memoryview, file: BinaryIO) -> None:
    """Read exactly as many bytes as the buffer holds.

    Raises:
        EOFError: the file ends before.
    """
    filled = 0
    while filled < len(buffer):
        count = file.readinto(buffer[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        filled += count
