"""Files and folders that must be what they seem: no symbolic or hard link may carry a read or a write elsewhere.

A data set brings its own folders along, and results may lie inside it (BIDS derivatives): whatever stands in an output
folder beforehand is input, and as little to be trusted.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path, PurePosixPath

from monai_sasm.errors import RefusedError

_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, flags: int, mode: int = 0o666) -> int:
    """``os.open`` of a regular file with one name; the caller closes the descriptor.

    Args:
        path: the file; its folder is the caller's to check.
        flags: of ``os.open``. ``O_TRUNC`` is not allowed, for the file would be empty before it is looked at.
        mode: permissions where the file is created, less the umask.

    Raises:
        RefusedError: a link, a pipe, a device or a folder is there, or a file with a second name elsewhere.
        OSError: as ``os.open``.
    """
    if flags & os.O_TRUNC:
        raise ValueError("open without O_TRUNC, then truncate")
    try:
        if path.is_symlink():  # where the system has no O_NOFOLLOW
            raise OSError(errno.ELOOP, "symbolic link")
        descriptor = os.open(path, flags | _CAREFUL, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise RefusedError(_NO_FILE.format(path.name)) from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise RefusedError(_NO_FILE.format(path.name))
    return descriptor


_NO_FILE = (
    "{} is a link, a pipe or a folder where a plain file of one name must be; remove it (or put a copy of its own in "
    "its place), or choose another output folder"
)


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        RefusedError: see :func:`open_regular`, or the file is longer.
        OSError: as ``os.open``.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise RefusedError(f"{path.name} is longer than the {most} bytes it may have; remove it")
    return content


def make_folder(path: Path) -> None:
    """Create a folder where it is missing; its parents must exist.

    Raises:
        RefusedError: something else is in its place, a link to a folder included.
    """
    try:
        os.mkdir(path)
    except FileExistsError:
        if not is_folder(path):
            raise RefusedError(
                f"{path.name} in {path.parent} is a link or a file where a folder must be; "
                "remove it, or choose another output folder"
            ) from None


def is_folder(path: Path) -> bool:
    """Whether a folder is there itself, and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def inside(root: Path, relative: str) -> Path:
    """The place of a relative name below a folder, on a way on which no link stands; it need not exist.

    Args:
        root: the folder; links in its own path are its owner's business.
        relative: parts separated by ``/``, none of them ``.`` or ``..`` or empty.

    Raises:
        RefusedError: the name is absolute or has such parts, or a folder on the way or the place itself is a link.
    """
    parts = relative.split("/")
    forbidden = {"", ".", ".."}
    if forbidden & set(parts) or "\0" in relative or PurePosixPath(relative).is_absolute():
        raise RefusedError("a name leads out of the output folder; nothing is written there")
    if os.name == "nt" and any("\\" in part or ":" in part for part in parts):
        raise RefusedError("a name leads out of the output folder; nothing is written there")
    place = root
    for part in parts:
        place = place / part
        if place.is_symlink():
            raise RefusedError(
                "a symbolic link stands in the place of a result or on the way to it, and results are never written "
                "through links; remove it, or choose another output folder"
            )
    return place


def refuse_links_inside(folder: Path) -> None:
    """Look through a folder, or at a file: plain files and folders only.

    Raises:
        RefusedError: a link, a pipe, a device, or a file with a second name.
    """
    found = os.lstat(folder)
    if stat.S_ISDIR(found.st_mode):
        for entry in os.scandir(folder):
            refuse_links_inside(Path(entry.path))
    elif not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise RefusedError(_NO_FILE.format(folder.name))


def refuse_astray(output: Path, source: Path) -> None:
    """An output named inside the input must lie inside it: the input's own links may not send results elsewhere.

    Args:
        output: folder as it was given.
        source: folder as it was given.

    Raises:
        RefusedError: a link in the input leads the output out of it.
    """
    named, root = Path(os.path.abspath(output)), Path(os.path.abspath(source))
    if named.is_relative_to(root) and not named.resolve().is_relative_to(root.resolve()):
        raise RefusedError(
            "the output folder is named inside the input, but a symbolic link there leads out of it; "
            "name the folder the link stands for, if that is what you want"
        )


def owner_here(folder: Path) -> int:
    """The owner that files get which this process makes in a folder: on some file systems, not the process's user."""
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _CAREFUL, 0o600)
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        os.unlink(probe)
