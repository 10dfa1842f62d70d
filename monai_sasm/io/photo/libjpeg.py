"""What libjpeg says of a JPEG whose data are damaged: it goes on, and Pillow does not pass its warnings on.

SimpleITK has a libjpeg that writes them to the stream of errors of the process, from where they are taken.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
        with _errors_to(said):
            try:
                SimpleITK.ReadImage(str(path))
            except RuntimeError:  # what it cannot read at all says nothing of what Pillow read
                return ""
        said.seek(0)
        return said.read(4096).decode("utf-8", "replace").strip()


@contextmanager
def _errors_to(file: BinaryIO) -> Iterator[None]:
    """The second stream of the process goes into a file for the block."""
    sys.stderr.flush()
    before = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
