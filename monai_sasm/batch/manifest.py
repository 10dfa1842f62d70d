"""The manifest: one JSON object a line, one line per series, on disk before the next series counts as done."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from monai_sasm.batch.row import Row
from monai_sasm.io.nofollow import open_regular

logger = logging.getLogger("monai_sasm")
NAME = "manifest.jsonl"


class Manifest:
    """Appends rows to a file, each synced to disk. A line that a crash cut off is removed on opening.

    Args:
        path: of the file; created when missing.

    Raises:
        ValueError: what is there is no manifest, or a link to one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latest = {row["input"]["id"]: row for row in read(path)}
        self._file = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.ftruncate(self._file, len(_whole_lines(path)))

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
    """All rows of a manifest, oldest first; an incomplete last line is passed over, a missing file is empty.

    A line that is no row is passed over with a warning: one bad line must not keep a batch from going on.

    Raises:
        ValueError: there are lines and none of them is a row, or the file is a link.
    """
    rows, bad = [], []
    for number, line in enumerate(_whole_lines(path).split(b"\n"), 1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line.strip():
            bad.append(str(number))
    if bad and not rows:
        raise ValueError(f"line {bad[0]} of {path} is no row of a manifest, nor is any other; move the file away")
    if bad:
        shown = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        logger.warning("%s: %d lines are no rows of a manifest and do not count: %s", path.name, len(bad), shown)
    return rows


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
        return row if isinstance(row["input"]["id"], str) else None
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return None


def _whole_lines(path: Path) -> bytes:
    """Everything up to and including the last newline; nothing where there is no file."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]
