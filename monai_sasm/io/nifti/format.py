"""NIfTI as a :class:`~monai_sasm.io.file_format.FileFormat`; nibabel is loaded when the first NIfTI file is met."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry, safe_name
from monai_sasm.io.nifti import names
from monai_sasm.io.nifti.header import checked_shape, is_nifti, notes_on, read_header, slice_axis_of, slice_count
from monai_sasm.io.nifti.read import NiftiSource, read, unknown_modality
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality


class NiftiFormat:
    """NIfTI-1 and NIfTI-2 in one file; also what images of other formats are exported to."""

    name = "nifti"
    suffixes: tuple[str, ...] = names.SUFFIXES
    is_folder = False

    def sniff(self, head: bytes) -> bool:
        """The sizes that NIfTI-1, NIfTI-2 and Analyze headers begin with."""
        return is_nifti(head)

    def inspect(self, files: Sequence[Path], modality: Modality | None) -> list[Entry]:
        """One entry per file."""
        return [inspect(file, modality) for file in files]

    def result_name(self, entry: Entry) -> str:
        """The name of the source."""
        return names.result_name(entry.paths[0])

    def write(
        self, volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
    ) -> list[Path]:
        """As the source's type, or float32 for an image that was no NIfTI, with a JSON sidecar."""
        from monai_sasm.io.nifti import export, write

        if isinstance(volume.source, NiftiSource):
            return write.write(volume, path, derivation, overwrite=overwrite)
        return export.export_image(volume, path, derivation, overwrite=overwrite)


def inspect(path: Path, modality: Modality | None = None) -> Entry:
    """Look at the header only. Never raises for a bad file: the entry then carries the reason.

    Args:
        path: a NIfTI file.
        modality: what made it; without it, only a BIDS suffix in the file name decides, nothing is guessed.
    """
    refusal, geometry = None, "unknown"
    notes: tuple[str, ...] = ()
    known = modality or names.bids_modality(path)
    try:
        header = read_header(path)
        shape = checked_shape(header, path)
        notes = notes_on(header)
        geometry = "single" if slice_count(shape, slice_axis_of(header, shape)) == 1 else "regular"
        if names.is_bids_label(path):
            raise RefusedError("a segmentation or mask by its BIDS suffix, not an image: nothing to restore")
        if known is None or known.profile.is_picture:
            raise RefusedError(unknown_modality())
    except RefusedError as error:
        refusal = str(error)
    name = safe_name(names.stem(path))
    return Entry(name, "nifti", (path,), known, geometry, refusal, notes, partial(read, path, known, name))
