"""Layout: how a file holds its voxels, as its header says; the same for every format of this package."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISLNK
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.volume import LPS_TO_RAS
from monai_sasm.types import Modality

MAX_HEADER = 1 << 20
"""Bytes that are looked through for the end of a header of text."""
NO_ORIENTATION = "the header gives no orientation; left and right are not known"
_RATIO = 1032  # no deflate stream expands further (zlib technical details)


@dataclass(frozen=True, eq=False)
class Layout:
    """How a file holds its voxels.

    Args:
        shape: sizes of all axes, the fastest first.
        dtype: of a number, with its byte order.
        affine: ``(4, 4)`` index along the spatial axes to RAS mm.
        head: what stands in front of the voxels, as it is in the file.
        data: the file that holds the voxels; another one than that of the header where the two are apart.
        offset: bytes before the voxels in it.
        coding: ``raw``, ``gzip`` (the voxels alone), ``zlib`` (the same) or ``file`` (gzip, header and all).
        channel: axis that counts time points or the like; ``None`` where all are spatial.
        modality: what made it, where the header says it.
        notes: what a user should know.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: NDArray[np.float64]
    head: bytes
    data: Path
    offset: int = 0
    coding: str = "raw"
    channel: int | None = None
    modality: Modality | None = None
    notes: tuple[str, ...] = ()

    @property
    def spatial(self) -> tuple[int, ...]:
        """Sizes of the spatial axes."""
        return tuple(size for axis, size in enumerate(self.shape) if axis != self.channel)

    @property
    def bytes(self) -> int:
        """Of all voxels, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked voxels, and what follows them."""
        with open(self.data, "rb") as file:
            if self.coding == "file":
                with gzip.GzipFile(fileobj=file) as whole:
                    whole.seek(self.offset)
                    yield whole  # type: ignore[misc]
                return
            file.seek(self.offset)
            yield file if self.coding == "raw" else _Inflating(file)  # type: ignore[misc]

    def check(self) -> None:
        """Every check that the header alone allows.

        Raises:
            RefusedError: no image, no usable affine, or more voxels than the file can hold.
        """
        if min(self.shape) < 1 or sum(size > 1 for size in self.spatial) < 2 or len(self.spatial) > 3:
            raise RefusedError(f"an image needs two or three axes longer than 1, got shape {self.spatial}")
        if not np.isfinite(self.affine).all() or np.linalg.matrix_rank(self.affine) < 4:
            raise UnreadableError("spacing and directions have no inverse: repair the header")
        try:
            held = self.data.stat().st_size - (0 if self.coding == "file" else self.offset)
        except OSError as error:
            raise UnreadableError("the file with the voxels is not beside its header: copy both") from error
        largest = max(0, held) * (1 if self.coding == "raw" else _RATIO)
        if self.bytes > largest:
            raise UnreadableError(
                f"the header promises {self.bytes} bytes, the file holds {largest} at most: it is cut short"
            )


class Codec(Protocol):
    """A format: its name and its header, read and written. Modules fulfil it."""

    NAME: str
    SUFFIXES: tuple[str, ...]
    DETACHED: tuple[str, ...]
    """Suffixes of headers whose voxels lie in another file."""

    def sniff(self, head: bytes) -> bool:
        """Whether a file is of this format by its first (unpacked) bytes."""

    def parse(self, path: Path) -> Layout:
        """The header of a file. Raises :class:`RefusedError` for one that is not read, and nothing else."""

    def header(self, layout: Layout, stored: int, data: str | None) -> bytes:
        """The header to write.

        Args:
            layout: of the source.
            stored: bytes that the voxels take in the file.
            data: name of the file with the voxels; ``None`` for the same file.
        """

    def new(self, shape: tuple[int, ...], affine: NDArray[np.float64]) -> Layout:
        """The layout of a new file of float32; ``shape`` ``(i, j, k)`` or with time points behind."""


def lines_of(head: bytes) -> list[str]:
    """Lines of a header of text: UTF-8, and bytes of any other encoding as they are; see :func:`bytes_of`."""
    return re.split("\r?\n", head.decode("utf-8", "surrogateescape"))


def bytes_of(lines: Iterable[str]) -> bytes:
    """The header of text that has these lines, each with its end."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def beside(path: Path, name: str) -> Path:
    """The file that a header names: in its own folder, for a header may come from anywhere.

    Raises:
        RefusedError: it is elsewhere, or there are several.
    """
    if "%" in name or name.split()[:1] == ["LIST"]:
        raise RefusedError("the voxels lie in several files: save the volume as one file")
    name = name.removeprefix("./")
    found = path.parent / name
    linked = False
    try:
        linked = S_ISLNK(os.lstat(found).st_mode)
    except FileNotFoundError:  # told where the voxels are looked for
        pass
    except (OSError, ValueError) as error:  # too long, or with a zero byte
        raise UnreadableError("the header names voxels by what no file can be called: repair the header") from error
    if not name or found.name != name or linked:
        raise RefusedError("the header names voxels in another folder: keep both files in one")
    return found


def affine_from_lps(directions: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(4, 4)`` to RAS mm from one row of LPS mm per axis, ``(2 or 3, 3)``; a missing third axis is their normal."""
    affine = np.eye(4)
    count = len(directions)
    affine[:3, :count] = directions.T
    if count == 2:
        normal = np.cross(directions[0], directions[1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    affine[:3, 3] = origin
    return np.asarray(LPS_TO_RAS @ affine)


class _Inflating:
    """A zlib or gzip stream that is unpacked while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._packed = file, b""
        self._inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def readinto(self, buffer: memoryview) -> int:
        """As of any file; 0 at the end."""
        while not self._inflater.eof:
            self._packed = self._packed or self._file.read(1 << 16)
            if not self._packed:
                return 0
            part = self._inflater.decompress(self._packed, len(buffer))
            self._packed = self._inflater.unconsumed_tail
            if part:
                buffer[: len(part)] = part
                return len(part)
        return 0
