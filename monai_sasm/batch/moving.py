"""Files of results take their places, and those of earlier results go; what is a user's stays as it is."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

from monai_sasm.io.commit import guard_folder, move_file, move_folder
from monai_sasm.io.nofollow import is_folder
from monai_sasm.restoration.targets import is_result


def files_of(place: Path, names: list[str]) -> list[Path]:
    """The files of a unit: those in a folder, or itself."""
    return [place / name for name in names] or [place]


def guard_file(file: Path, *, overwrite: bool, series: bool) -> None:
    """Refuse to replace a file that is not as the earlier result left it.

    Args:
        file: to be written.
        overwrite: replace it all the same.
        series: it lies in a series folder, where only what this program derived is replaced.

    Raises:
        FileExistsError: it is there, and not to be replaced.
    """
    if not os.path.lexists(file):
        return
    if not overwrite:
        raise FileExistsError(f"{file} was changed since it was made; move it away, or pass overwrite=True")
    if series and not is_result(file):
        raise FileExistsError(f"{file} was not written by this program; move it away or choose another output")


def untouched(file: Path, until: int) -> bool:
    """Whether a file is there and was not changed after a time."""
    with suppress(OSError):
        return changed(file.lstat()) <= until
    return False


def changed(found: os.stat_result) -> int:
    """When a file, its name or its content, was last changed, ns."""
    return max(found.st_mtime_ns, found.st_ctime_ns)


def removed(file: Path, until: int) -> bool:
    """Delete a plain file that was not changed after a time; whether it is gone."""
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode) or changed(found) > until:
            return False
        file.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return True


def move(source: Path, target: Path, names: list[str]) -> None:
    """Rename into place. Files of an existing series folder are replaced one by one; others in it stay.

    What is missing has been moved already, before a crash or by another process.
    """
    with suppress(FileNotFoundError):
        if not target.is_dir():
            os.replace(source, target)
            return
    for name in names:
        with suppress(FileNotFoundError):
            os.replace(source / name, target / name)  # a link of that name is replaced, not followed


def move_whole(source: Path, target: Path) -> None:
    """The same of a series folder in place of one of which nothing is recorded: it may hold results, and goes whole."""
    with suppress(FileNotFoundError):
        move_folder(source, target, guard=partial(guard_folder, target, overwrite=True, ours=is_result))


def move_to_free(source: Path, target: Path) -> None:
    """The same where nothing may be replaced, not even what has come since that was looked at."""
    try:
        if is_folder(source):
            guard = partial(guard_folder, target, overwrite=False, ours=lambda _: False)
            move_folder(source, target, guard=guard)
        elif source.exists():
            move_file(source, target, overwrite=False)
    except (FileExistsError, FileNotFoundError):
        if source.exists():
            raise
