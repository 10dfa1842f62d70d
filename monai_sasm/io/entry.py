"""Entry: one thing found on disk, with what is known about it before any pixel is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.nifti.names import stem
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality


@dataclass(frozen=True)
class Entry:
    """One image, volume or DICOM series as found by :func:`monai_sasm.io.formats.inventory`.

    Args:
        name: file-system-safe label, unique within one inventory; names the output. That of a DICOM series is a hash;
            that of any other file, and of one that is refused, is its own name, which may be a patient's.
        format: name of its :class:`~monai_sasm.io.file_format.FileFormat`: ``dicom``, ``nifti``, ``raster``, ...
        paths: the files it is made of.
        modality: what made it; ``None`` where the file does not say (a NIfTI without ``--modality``).
        geometry: ``regular``, ``tilted``, ``gap``, ``irregular``, ``single``, ``multiframe`` or ``unknown``.
        refusal: why it will not be processed, with the way out; ``None`` when it will be.
        notes: decisions taken (duplicates dropped, private tags left out, ...).
        load: reads the pixels; raises :class:`RefusedError` where only reading could tell.
        forced: reads them where the refusal only says that they are something else than an image (a label map, phase,
            ...), which the user may know better; ``None`` where it cannot be overruled.
        unreadable: whether the refusal says that it could not be read (damaged, incomplete, locked): a failure, where
            other refusals are what is rightly passed over.
        is_result: whether it is a result of this program, by the marks that it carries; photos carry them only where
            detail was drawn.
    """

    name: str
    format: str
    paths: tuple[Path, ...]
    modality: Modality | None
    geometry: str
    refusal: str | None
    notes: tuple[str, ...]
    load: Callable[[], Volume]
    forced: Callable[[], Volume] | None = None
    unreadable: bool = False
    is_result: bool = False

    @property
    def label(self) -> str:
        """What messages call it where names may be said: its file, or the series in its folder."""
        first = self.paths[0]
        own = self.name if len(self.paths) > 1 and self.format == "dicom" else first.name
        return f"{first.parent.name}/{own}" if first.parent.name else own


def refused(path: Path, reason: str, file_format: str, *, unreadable: bool = False) -> Entry:
    """The entry of a file that is not read."""
    load = partial(refuse, reason, unreadable=unreadable)
    name = safe_name(stem(path))
    return Entry(name, file_format, (path,), None, "unknown", reason, (), load, unreadable=unreadable)


def refuse(reason: str, *, unreadable: bool = False) -> Volume:
    """What loading a refused entry does.

    Raises:
        RefusedError: always.
        UnreadableError: ... where it could not be read.
    """
    raise (UnreadableError if unreadable else RefusedError)(reason)


RESTORED = "a result of this program, which would be changed a second time: restore the image that it was made from"
"""Why an entry with :attr:`Entry.is_result` is not restored."""


def safe_name(name: str) -> str:
    """A label that every file system takes: letters, digits, ``_``, ``-`` and ``.`` within."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "image"
