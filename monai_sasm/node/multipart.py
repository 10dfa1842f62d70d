"""``multipart/related`` (RFC 2387), as DICOMweb sends and takes objects: written whole, read piece by piece."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

PART = "application/dicom"
_MAX_HEADER = 16 << 10  # bytes of the headers of one part
_MAGIC = (b"DICM", 128)  # PS3.10 section 7.1
_BOUNDARY = re.compile(r'boundary\s*=\s*(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)


def encode(files: Sequence[Path]) -> tuple[str, bytes]:
    """Content type and body of a request with the content of files as its parts."""
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {PART}\r\n\r\n".encode()
    body = b"".join(part for file in files for part in (head, file.read_bytes(), b"\r\n"))
    return f'multipart/related; type="{PART}"; boundary={boundary}', body + f"--{boundary}--\r\n".encode()


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a content type names; ``None`` where it is none of several parts."""
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().lstrip().startswith("multipart/related") or match is None:
        return None
    return (match[1] or match[2]).encode("latin-1")


class Parts:
    """Reads a body part by part; never holds more than two pieces of it in memory.

    Args:
        body: pieces of any size.
        boundary: see :func:`boundary_of`.
    """

    def __init__(self, body: Iterable[bytes], boundary: bytes) -> None:
        self._body, self._held = iter(body), b"\r\n"  # the first boundary needs no line before it
        self._inside = True  # of a part, or of what stands before the first one
        self._delimiter = b"\r\n--" + boundary

    def next(self) -> bool:
        """Go to the content of the next part, past its headers; whether there is one.

        Raises:
            ValueError: the body ends before its last boundary, or the headers are too long.
        """
        if self._inside:
            for _ in self._until(self._delimiter, None):
                pass
        while len(self._held) < 2:
            self._more()
        if self._held.startswith(b"--"):
            return False
        for _ in self._until(b"\r\n\r\n", _MAX_HEADER):
            pass
        self._inside = True
        return True

    def copy(self, file: BinaryIO, most: int) -> int:
        """Copy the content of this part to a file; returns its bytes.

        Raises:
            ValueError: it is no DICOM object (PS3.10), longer than ``most`` bytes, or breaks off.
        """
        magic, offset = _MAGIC
        size, start = 0, b""
        for piece in self._until(self._delimiter, None, keep=True):
            size += len(piece)
            if size > most:
                raise ValueError(f"the server sent an object longer than the {most >> 20} MiB it may have")
            start += piece[: offset + len(magic)]  # of the first piece, mostly
            if len(start) >= offset + len(magic) and start[offset : offset + len(magic)] != magic:
                break
            start = start[: offset + len(magic)]
            file.write(piece)
        self._inside = False
        if start[offset : offset + len(magic)] != magic:
            raise ValueError("the server sent something else than a DICOM object")
        return size

    def _until(self, mark: bytes, most: int | None, keep: bool = False) -> Iterator[bytes]:
        """What comes before the next ``mark``, which is taken out as well."""
        size = 0
        while True:
            place = self._held.find(mark)
            safe = place if place >= 0 else max(0, len(self._held) - len(mark) + 1)
            size += safe
            if most is not None and size > most:
                raise ValueError("the headers of a part of the server's answer are too long")
            if safe:
                piece, self._held = self._held[:safe], self._held[safe:]
                if keep:
                    yield piece
            if place >= 0:
                self._held = self._held[len(mark) :]
                return
            self._more()

    def _more(self) -> None:
        piece = next(self._body, None)
        if piece is None:
            raise ValueError("the server's answer broke off; fetch again")
        self._held += piece
