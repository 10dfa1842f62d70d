"""The manifest: one JSON object a line, one line per series, on disk before the next series counts as done."""

from __future__ import annotations

import json
import os
from pathlib import Path

from monai_sasm.batch.row import Row

NAME = "manifest.jsonl"


class Manifest:
    """Appends rows to a file, each synced to disk. A line that a crash cut off is removed on opening.

    Args:
        path: of the file; created when missing.

    Raises:
        ValueError: what is there is no manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latest = {row["input"]["id"]: row for row in read(path)}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        os.ftruncate(self._file, _whole_lines(path))

    def latest(self, identity: str) -> Row | None:
        """The last row of a series."""
        return self._latest.get(identity)

    def append(self, row: Row) -> None:
        """Write a row; it is on disk when this returns.

        Raises:
            OSError: the disk is full or gone; the file ends with the last whole line.
        """
        line = json.dumps(row, default=str).encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError("the manifest could not be written in full; is the disk full?")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self._latest[row["input"]["id"]] = row

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read(path: Path) -> list[Row]:
    """All rows of a manifest, oldest first; an incomplete last line is passed over, a missing file is empty."""
    try:
        text = path.read_bytes()[: _whole_lines(path)]
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            raise ValueError(f"line {number} of {path} is not JSON; repair the manifest or move it away") from None
    return rows


def _whole_lines(path: Path) -> int:
    """Bytes up to and including the last newline."""
    return path.read_bytes().rfind(b"\n") + 1
