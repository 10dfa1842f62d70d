"""The images there are to look at: those of the command line, and those that were dropped on the page."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sasm.errors import RefusedError, as_commands, reason_of
from monai_sasm.io.entry import Entry, safe_name
from monai_sasm.io.formats import inventory, output_path
from monai_sasm.io.owned_folder import OwnedFolder, temporary
from monai_sasm.types import Modality

TEMPORARY = "sasm-view-"
"""Begin of the names of temporary folders."""
MAX_UPLOAD = 2 << 30  # bytes, all uploads of a run together
MAX_FILES = 20_000
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Image:
    """One image of the inventory, refused ones among them.

    Args:
        id: by which the page names it; nothing else names a file.
        entry: see :class:`Entry`.
        root: the path it was found under.
        uploaded: whether it came by the page.
    """

    id: str
    entry: Entry
    root: Path
    uploaded: bool = False

    @property
    def place(self) -> str:
        """Where it lies below its root, for people; the names of DICOM series are hashes."""
        path = self.entry.paths[0]
        if len(self.entry.paths) > 1:
            path = path.parent
        return path.name if path == self.root else path.relative_to(self.root).as_posix()

    @property
    def may_be(self) -> list[str]:
        """What it may be, where the file does not say it and the user must."""
        unsaid = self.entry.modality is None and "does not say what made it" in (self.entry.refusal or "")
        return [one.value for one in Modality.known() if not one.profile.is_picture] if unsaid else []

    def card(self) -> dict[str, Any]:
        """What the page shows of it before any pixel is read."""
        entry = self.entry
        return {
            "id": self.id,
            "name": entry.name,
            "place": self.place,
            "modality": entry.modality.value if entry.modality else None,
            "format": entry.format,
            "geometry": entry.geometry,
            "files": len(entry.paths),
            "refusal": entry.refusal and as_commands(entry.refusal),
            "notes": list(entry.notes),
            "mayBe": self.may_be,
        }

    def target(self, output: Path) -> Path:
        """Where `sasm restore ROOT -o OUTPUT` writes its result."""
        return output_path(self.entry, self.root, output)

    def command(self, output: Path, *, expert: str | None, strength: float, words: Sequence[str] = ()) -> str:
        """The command line that writes the same result; ``words`` are further ones."""
        path = self.entry.paths[0] if len(self.entry.paths) == 1 else self.entry.paths[0].parent
        line = ["sasm", "restore", path.name if self.uploaded else str(path), "-o", str(output)]
        made_by = self.entry.modality
        if made_by is not None and self.entry.format != "dicom" and not made_by.profile.is_picture:
            line += ["--modality", made_by.value]
        line += ["--expert", expert] if expert else []
        line += ["--strength", f"{strength:g}"] if strength != 1 else []
        return shlex.join([*line, *words])


class Found:
    """All images of a run; safe to use from several threads.

    Args:
        modality: what NIfTI files are, which do not say it themselves.
        limit: bytes that may be uploaded.
    """

    def __init__(self, modality: Modality | None = None, limit: int = MAX_UPLOAD) -> None:
        self.modality, self.limit = modality, limit
        self.looking = False
        self.trouble: str | None = None
        self._images: dict[str, Image] = {}
        self._lock = threading.Lock()
        self._uploads: OwnedFolder | None = None
        self._batch = self._received = self._files = self._count = 0

    def __iter__(self) -> Iterator[Image]:
        return iter(list(self._images.values()))

    def __getitem__(self, name: str) -> Image:
        return self._images[name]

    def look(self, path: Path, uploaded: bool = False) -> None:
        """Add what is under a path; what is wrong with the path itself is kept in ``trouble``."""
        self.looking, self.trouble = True, None
        try:
            self._add(inventory(path, self.modality), path, uploaded=uploaded)
        except (ValueError, OSError) as error:
            self.trouble = reason_of(error)
        finally:
            self.looking = False

    def declare(self, name: str, modality: str) -> None:
        """Say what an image is that does not say it itself; its card keeps its place.

        Raises:
            KeyError: there is no such image.
            ValueError: it says it itself, or cannot be that.
        """
        image = self._images[name]
        if modality not in image.may_be:
            raise ValueError("this image says itself what it is, or is not read")
        entry = inventory(image.entry.paths[0], Modality(modality))[0]
        self._images[name] = Image(name, entry, image.root, image.uploaded)

    def receive(self, name: str) -> Path:
        """A new file in the folder of uploads, for a file that the browser calls ``name``.

        Raises:
            RefusedError: there are too many.
        """
        with self._lock:
            self._files += 1
            if self._files > MAX_FILES:
                raise RefusedError(f"at most {MAX_FILES} files can be dropped; give the folder to sasm view instead")
            if self._uploads is None:
                self._uploads = OwnedFolder(temporary(), TEMPORARY)
            folder = self._uploads.path / str(self._batch)
            safe = safe_name(name)[-_LONGEST_NAME:]
            path = folder / safe
            if path.exists():
                path = folder / str(self._files) / safe
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        return path

    def count(self, size: int) -> None:
        """Note that so many bytes came, before they are kept.

        Raises:
            RefusedError: that is too much.
        """
        with self._lock:
            if self._received + size > self.limit:
                raise RefusedError(
                    f"at most {self.limit / 2**30:g} GiB can be dropped on the page; "
                    "give the folder to sasm view instead"
                )
            self._received += size

    def look_at_uploads(self) -> None:
        """Add what came since the last time."""
        with self._lock:
            folder = None if self._uploads is None else self._uploads.path / str(self._batch)
            self._batch += 1
        if folder is not None and folder.is_dir():
            self.look(folder, uploaded=True)

    def close(self) -> None:
        """Delete what was uploaded."""
        if self._uploads is not None:
            self._uploads.close()

    def _add(self, entries: list[Entry], root: Path, *, uploaded: bool) -> None:
        with self._lock:
            for entry in entries:
                self._count += 1
                self._images[str(self._count)] = Image(str(self._count), entry, root, uploaded)
