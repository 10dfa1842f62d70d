"""FileFormat: all that the package has to know about one kind of image file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

HEAD = 352
"""Bytes that tell formats apart: a NIfTI header and its extension flag; every other signature is shorter."""


class FileFormat(Protocol):
    """One kind of image file; all of them stand in :data:`monai_sasm.io.formats.FORMATS`.

    Modules of formats import their libraries on first use, so that listing photos loads no DICOM library.
    """

    name: str
    """As in :attr:`Entry.format <monai_sasm.io.entry.Entry.format>`, and in ``format`` of the
    :class:`~monai_sasm.io.volume.Source` that its reader gives to volumes."""

    suffixes: tuple[str, ...]
    """Ends of its file names in lower case, the usual one first."""

    read_only: tuple[str, ...]
    """Ends of names of files that are read, and whose results have one of :attr:`suffixes`."""

    is_folder: bool
    """Whether an image is many files, whose result is a folder."""

    def sniff(self, head: bytes) -> bool:
        """Whether a file is of this kind by its first :data:`HEAD` bytes, unpacked when they were gzip."""

    def inspect(self, files: Sequence[Path], modality: Modality | None) -> list[Entry]:
        """What there is in files of this kind, by their headers. Never raises for a bad one: its entry says why.

        Args:
            files: those that :meth:`sniff` took for its own.
            modality: what they are, where they do not say it themselves.
        """

    def result_name(self, entry: Entry) -> str:
        """Name of the file or folder that the result of an entry that is not refused is written to."""

    def check_target(self, entry: Entry, path: Path) -> None:
        """Before anything is done: whether the result of an entry, of this format or another, may get this name.

        Raises:
            ValueError: the format cannot hold it.
        """

    def companions(self, target: Path) -> tuple[Path, ...]:
        """Files that are written beside ``target``."""

    def write(
        self, volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
    ) -> list[Path]:
        """Write an image: one that its own reader made as it came, with all headers; others as far as it can hold them.

        Files appear whole or not at all (:mod:`monai_sasm.io.commit`).

        Args:
            volume: finite values.
            path: file (or folder, where an image is many files).
            derivation: what was done, for the headers or a sidecar.
            overwrite: replace an existing target.
            keep_private: keep attributes that may identify a patient, where the format has such.

        Returns:
            The files written, the image first.

        Raises:
            FileExistsError: the target exists and ``overwrite`` is off.
            ValueError: the format cannot hold the image, the suffix is wrong, or the target is the source.
        """
