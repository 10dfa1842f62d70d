"""Writing a file so that it appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def guard_target(target: Path, *, overwrite: bool, sources: tuple[Path, ...] = ()) -> None:
    """Refuse a target that would destroy something.

    Raises:
        FileExistsError: ``target`` exists and ``overwrite`` is off.
        ValueError: ``target`` is one of ``sources`` (also through a link); sources are never written to.
    """
    for source in sources:
        if _same_file(target, source):
            raise ValueError(f"a result is never written onto its source, got {target.name}; choose another output")
    if target.is_dir():
        raise IsADirectoryError(f"the target must be a file, got the folder {target}; add a file name")
    if not overwrite and os.path.lexists(target):
        raise FileExistsError(f"{target} exists; choose another output or pass --overwrite")


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A binary file that becomes ``target`` when the block ends, and vanishes when the block raises.

    It lives in the folder of ``target`` (created when missing), so that the final rename is atomic.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _same_file(left: Path, right: Path) -> bool:
    if left.absolute() == right.absolute() or left.resolve() == right.resolve():
        return True
    try:
        return left.samefile(right)
    except OSError:
        return False
