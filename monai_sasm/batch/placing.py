"""Results are written aside and then moved into place together: all files of an image, or none of them."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_sasm.io.nofollow import below


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """An empty folder whose content goes to ``folder`` by :func:`place`; on the same disk, gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{secrets.token_hex(8)}.tmp"
    (aside / "new").mkdir(parents=True)
    try:
        yield aside / "new"
    finally:
        shutil.rmtree(aside / "new", ignore_errors=True)
        with suppress(OSError):  # should moving back have failed, too, what was replaced is kept there
            aside.rmdir()


def whole_parts(folder: Path) -> Iterator[Path]:
    """What is moved as one: DICOM series folders, and files beside folders."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not any(path.glob("*.dcm")):
            yield from whole_parts(path)
        else:
            yield path


def place(staging: Path, folder: Path, *, overwrite: bool) -> None:
    """Move what lies in a staging folder to the same places in another one; where that fails, nothing has moved.

    Args:
        staging: from :func:`staged`.
        folder: where the results go.
        overwrite: replace files and series of these names. Files that somebody put beside an old series stay.

    Raises:
        FileExistsError: something is in the way.
        RefusedError: a link is in the place of a result or on the way to it.
    """
    moves = [(path, below(folder, path.relative_to(staging).as_posix())) for path in whole_parts(staging)]
    for path, target in moves:
        if os.path.lexists(target) and target.is_dir() != path.is_dir():
            raise FileExistsError(f"{target} is no result of this kind; move it away")
        if os.path.lexists(target) and not overwrite and not (target.is_dir() and not any(target.iterdir())):
            raise FileExistsError(f"{target} exists; choose another output or pass --overwrite")
    replaced = staging.parent / "old"
    replaced.mkdir()
    done: list[tuple[Path, Path]] = []
    try:
        for number, (path, target) in enumerate(moves):
            target.parent.mkdir(parents=True, exist_ok=True)
            old = replaced / str(number)
            if os.path.lexists(target):
                _keep(target, old)
                done.append((old, target))
            os.replace(path, target)
            done.append((target, path))
    except BaseException:
        for now, before in reversed(done):
            os.replace(now, before)
        shutil.rmtree(replaced, ignore_errors=True)
        raise
    for number, (_, target) in enumerate(moves):
        _return_others(replaced / str(number), target)
    shutil.rmtree(replaced, ignore_errors=True)


def _keep(target: Path, old: Path) -> None:
    """Set a folder aside; of a file, which the new one replaces at a stroke, keep a second name or a copy."""
    if target.is_dir():
        os.replace(target, old)
        return
    try:
        os.link(target, old)
    except OSError:  # a file system without second names
        shutil.copy2(target, old)


def _return_others(old: Path, target: Path) -> None:
    """Put back what lay in the folder of an old series and was no part of it."""
    if not old.is_dir():
        return
    for path in old.iterdir():
        if not path.match("IM*.dcm"):
            with suppress(OSError):
                os.replace(path, target / path.name)
