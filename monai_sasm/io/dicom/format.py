"""DICOM as a :class:`~monai_sasm.io.file_format.FileFormat`; pydicom is loaded when the first DICOM file is met."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry, refused
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

BARE = (b"\x08\x00", b"\x02\x00", b"\x00\x08", b"\x00\x02")
"""Group numbers that a data set without preamble begins with, in both byte orders."""


def likeness(file: Path) -> tuple[Path, str]:
    """What names of slices of one series have in common: the folder, and the suffix or all but the digits."""
    name = file.name.lower()
    ends = (end for end in (*DicomFormat.suffixes, *DicomFormat.read_only) if name.endswith(end))
    return file.parent, name if name.startswith(".") else next(ends, re.sub(r"\d+", "0", name))


class DicomFormat:
    """Series of CT, MR and other slices, and Enhanced multi-frame objects; one folder per result."""

    name = "dicom"
    suffixes: tuple[str, ...] = (".dcm", ".dicom", ".ima")
    read_only: tuple[str, ...] = (".dcm.gz",)
    is_folder = True

    def sniff(self, head: bytes) -> bool:
        """``DICM`` after the preamble, or what may be a data set without preamble."""
        return head[128:132] == b"DICM" or head.startswith(BARE)

    def inspect(self, files: Sequence[Path], modality: Modality | None) -> list[Entry]:
        """One entry per volume; the files themselves say of which modality."""
        from monai_sasm.io.dicom.index import index

        left_out: dict[Path, str] = {}
        entries = index(files, left_out)
        return entries + [refused(file, reason, self.name) for file, reason in left_out.items()]

    def result_name(self, entry: Entry) -> str:
        """A folder named after the entry."""
        return entry.name

    def check_target(self, entry: Entry, path: Path) -> None:
        """A file for one file of DICOM; everything else goes into a folder."""
        if entry.format != self.name:
            raise ValueError(f"only DICOM images are written as DICOM, got {path.name}; choose another suffix")
        if len(entry.paths) != 1:
            raise ValueError(f"a series of several slices goes into a folder, got {path.name}; name a folder")

    def companions(self, target: Path) -> tuple[Path, ...]:
        """None."""
        return ()

    def write(
        self, volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
    ) -> list[Path]:
        """A derived series in a folder of its own, see :func:`monai_sasm.io.dicom.write.write_series`; one slice
        also in a file.
        """
        from monai_sasm.io.dicom.write import write_file, write_series

        if path.name.lower().endswith(self.suffixes) and not path.is_dir():
            return [write_file(volume, path, derivation, overwrite=overwrite, keep_private=keep_private)]
        return write_series(volume, path, derivation, overwrite=overwrite, keep_private=keep_private)
