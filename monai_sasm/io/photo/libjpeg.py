"""What libjpeg says of a JPEG whose data are damaged: it goes on, and Pillow does not pass its warnings on.

SimpleITK has a libjpeg that writes them to the output of the process, from where they are taken.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def warnings_of(data: bytes) -> str:
    """The first warning, empty for an intact file, or where SimpleITK says nothing.

    Args:
        data: a JPEG file that can be decoded.
    """
    import SimpleITK

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        path = Path(folder) / "a.jpg"
        path.write_bytes(data)
        with _output_to(said):
            try:
                SimpleITK.ReadImage(str(path))
            except RuntimeError:  # what it cannot read at all says nothing of what Pillow read
                return ""
        said.seek(0)
        return said.read(4096).decode("utf-8", "replace").strip()


@contextmanager
def _output_to(file: BinaryIO) -> Iterator[None]:
    """All that the process writes, libraries in C included, goes into a file for the block."""
    _flush()
    before = {stream: os.dup(stream) for stream in (1, 2)}
    for stream in before:
        os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        _flush()
        for stream, copy in before.items():
            os.dup2(copy, stream)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    with suppress(OSError, TypeError, AttributeError):  # a system without such a library
        ctypes.CDLL(None).fflush(None)
