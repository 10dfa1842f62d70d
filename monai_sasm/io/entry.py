"""Entry: one thing found on disk, with what the house makes of it before any pixel is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality


@dataclass(frozen=True)
class Entry:
    """One image, volume or DICOM series as found by :func:`monai_sasm.io.formats.inventory`.

    Args:
        name: file-system-safe label, unique within one inventory, free of patient data; names the output.
        format: ``dicom``, ``nifti`` or ``raster``.
        paths: the files it is made of.
        modality: CT, MR or photo; ``None`` where the file does not say (a NIfTI without ``--modality``).
        geometry: ``regular``, ``tilted``, ``gap``, ``irregular``, ``single``, ``multiframe`` or ``unknown``.
        refusal: why it will not be processed, with the way out; ``None`` when it will be.
        notes: decisions taken (duplicates dropped, private tags left out, ...).
        load: reads the pixels; raises :class:`RefusedError` where only reading could tell.
    """

    name: str
    format: str
    paths: tuple[Path, ...]
    modality: Modality | None
    geometry: str
    refusal: str | None
    notes: tuple[str, ...]
    load: Callable[[], Volume]
