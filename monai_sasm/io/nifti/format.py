"""NIfTI as a :class:`~monai_sasm.io.file_format.FileFormat`; nibabel is loaded when the first NIfTI file is met."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io import meaning
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry, refuse, safe_name
from monai_sasm.io.nifti import names
from monai_sasm.io.nifti.header import (
    checked_shape,
    intended,
    is_nifti,
    notes_on,
    read_header,
    slice_axis_of,
    slice_count,
)
from monai_sasm.io.nifti.read import NiftiSource, read, unknown_modality
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality


class NiftiFormat:
    """NIfTI-1 and NIfTI-2 in one file or as a pair, and Analyze; also what images of other formats are exported to."""

    name = "nifti"
    suffixes: tuple[str, ...] = (*names.SUFFIXES, *names.PAIR_SUFFIXES)
    read_only: tuple[str, ...] = ()
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

    def check_target(self, entry: Entry, path: Path) -> None:
        """No photos: they have no place in space."""
        names.check_in_space(entry.modality, path)

    def companions(self, target: Path) -> tuple[Path, ...]:
        """The sidecar, and the voxels of a pair."""
        voxels = names.voxels_of(target)
        return (names.sidecar_of(target), *([voxels] if voxels != target else []))

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
        modality: what made it, unless the file says it itself, by a BIDS suffix or its sidecar; nothing is guessed.
    """
    refusal, unreadable, doubt, geometry = None, False, None, "unknown"
    notes: tuple[str, ...] = ()
    paths: tuple[Path, ...] = (path,)
    known = modality
    try:
        known = names.said_modality(path) or modality
        header = read_header(path)
        if not header.is_single:
            paths = (path, names.paired(path))
        shape = checked_shape(header, paths[-1])
        notes = notes_on(header, path)
        geometry = "single" if slice_count(shape, slice_axis_of(header, shape)) == 1 else "regular"
        doubt = doubt_of(path, header, known)
        if known is None or known.profile.is_picture:
            raise RefusedError(unknown_modality())
    except RefusedError as error:
        refusal, unreadable = str(error), isinstance(error, UnreadableError)
    name = safe_name(names.stem(path))
    load = partial(read, path, known, name)
    forced = load if doubt and refusal is None else None
    reason = refusal or doubt
    if reason is not None:
        load = partial(refuse, reason, unreadable=unreadable)
    return Entry(name, "nifti", paths, known, geometry, reason, notes, load, forced, unreadable, names.is_result(path))


def doubt_of(path: Path, header: Any, modality: Modality | None) -> str | None:
    """Why a file is no image by its header or its BIDS sidecar, with the way out; ``None`` when it may be."""
    told = (
        (intended(header), "header"),
        (sidecar_meaning(path, modality), "sidecar"),
    )
    return next((meaning.refusal(what, by, modality) for what, by in told if what), None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def sidecar_meaning(path: Path, modality: Modality | None) -> str | None:
    """What the JSON file beside an image, as BIDS and dcm2niix have it, says that it is; ``None`` for an image."""
    told = names.read_sidecar(path)
    kinds = told.get("ImageType")
    kinds = [_text(kind) for kind in kinds] if isinstance(kinds, list) else []
    texts = " | ".join(_text(told.get(key)) for key in ("SeriesDescription", "ImageComments"))
    return (
        meaning.by_image_type(kinds, modality)
        or meaning.by_component(_text(told.get("ComplexImageComponent")))
        or meaning.by_unit(_text(told.get("Units")))
        or meaning.by_text(texts, derived=kinds[:1] == ["DERIVED"])
    )
