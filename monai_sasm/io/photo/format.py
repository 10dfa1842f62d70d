"""Photo files as a :class:`~monai_sasm.io.file_format.FileFormat`; codecs are loaded on first use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.photo import photo
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality


class PhotoFormat:
    """Photos: pictures without a place in space."""

    name = "raster"
    suffixes: tuple[str, ...] = tuple(suffix for suffixes in photo.SUFFIXES.values() for suffix in suffixes)
    read_only: tuple[str, ...] = tuple(suffix for suffixes in photo.READ_ONLY.values() for suffix in suffixes)
    is_folder = False

    def sniff(self, head: bytes) -> bool:
        """The signatures of its kinds."""
        return photo.kind_of(head) is not None

    def inspect(self, files: Sequence[Path], modality: Modality | None) -> list[Entry]:
        """One entry per file; photos say themselves that they are."""
        return [photo.inspect(file) for file in files]

    def result_name(self, entry: Entry) -> str:
        """The name of the source, with the suffix of its true kind."""
        with open(entry.paths[0], "rb") as stream:
            return photo.result_name(entry.paths[0], photo.kind_of(stream.read(64)))

    def check_target(self, entry: Entry, path: Path) -> None:
        """Only photos, and under a suffix of their kind."""
        if entry.modality is not None:
            photo.check_is_picture(entry.modality, path)
        if entry.format == self.name and entry.refusal is None:
            name = self.result_name(entry)
            photo.check_suffix(photo.kind_named(name), path)

    def companions(self, target: Path) -> tuple[Path, ...]:
        """None."""
        return ()

    def write(
        self, volume: Volume, path: Path, derivation: Derivation, *, overwrite: bool, keep_private: bool
    ) -> list[Path]:
        """As the source's kind and bit depth; as PNG where the name says so, or there was no photo file."""
        return photo.write(volume, path, derivation, overwrite=overwrite)
