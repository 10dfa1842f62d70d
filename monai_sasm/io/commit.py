"""Files and folders that appear whole or not at all, and survive a power cut once they are there.

Unfinished ones lie beside their target in folders whose names begin with :data:`WORKING`; no reader takes these for
images, and the next writer in the same place removes what a killed process left there.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO

from monai_sasm.io.nofollow import is_folder
from monai_sasm.io.owned_folder import OwnedFolder
from monai_sasm.io.permissions import file_mode, folder_mode

WORKING = ".sasm-"
"""Begin of the names of files and folders that are this program's own bookkeeping, never input and never a result."""

_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}  # left by file browsers
_SYNCED = 8  # files at a time, since each waits for the disk
_UNSYNCED = (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
_HERE = {"linux": -100, "darwin": -2}  # AT_FDCWD


def guard_target(target: Path, *, overwrite: bool, sources: tuple[Path, ...] = ()) -> None:
    """Refuse a target file that would destroy something.

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
        raise FileExistsError(f"{target} exists; choose another output or pass overwrite=True")


def guard_folder(folder: Path, *, overwrite: bool, ours: Callable[[Path], bool], found: Path | None = None) -> None:
    """Refuse a target folder whose replacement would destroy something.

    Args:
        folder: may be missing or empty.
        overwrite: files that are ``ours`` may go.
        ours: whether this program wrote a file. What it did not write is never deleted.
        found: where its content lies at the moment; ``folder`` itself.

    Raises:
        FileExistsError: ``folder`` is a file, or holds files and ``overwrite`` is off, or holds something foreign.
    """
    found = found or folder
    if not os.path.lexists(found):
        return
    if not found.is_dir():
        raise FileExistsError(f"{folder} is a file; a DICOM series needs a folder")
    there = [path for path in found.iterdir() if path.name not in _LITTER]
    if there and not overwrite:
        raise FileExistsError(f"{folder} holds files already; choose another output or pass overwrite=True")
    foreign = sum(path.is_symlink() or not path.is_file() or not ours(path) for path in there)
    if foreign:
        raise FileExistsError(
            f"{folder} is to be replaced as a whole, but {foreign} of the {len(there)} files and folders in it were "
            "not written by this program; move them away or choose another output"
        )


@contextmanager
def replacing(target: Path, *, overwrite: bool = True, sources: Collection[Path] = ()) -> Iterator[BinaryIO]:
    """A binary file that becomes ``target`` when the block ends, and vanishes when the block raises.

    It lies on the disk of ``target``, whose folder is created when missing, so that the final rename is atomic.

    Args:
        target: the file.
        overwrite: see :func:`move_file`.
        sources: the files it was made of; nobody may read it who may not read them.

    Raises:
        FileExistsError: see :func:`move_file`.
    """
    named = make_folders(target.parent, folder_mode(sources))
    with _working(target.parent) as aside:
        temporary = aside / f"{WORKING}{secrets.token_hex(8)}.tmp"
        try:
            with create(temporary, sources) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            move_file(temporary, target, overwrite=overwrite)
        finally:
            temporary.unlink(missing_ok=True)
    if not _is_working(target):  # else whoever moves it on sees to that
        sync_each(named)


def create(path: Path, sources: Iterable[Path]) -> BinaryIO:
    """A new binary file with the permissions that its sources allow, see :func:`file_mode`."""
    return open(path, "xb", opener=partial(os.open, mode=file_mode(sources)))


def move_file(source: Path, target: Path, *, overwrite: bool) -> None:
    """Rename a file on the same disk; the caller syncs its folder.

    Args:
        source: a file.
        target: its new name.
        overwrite: replace what is there. Otherwise nothing is replaced, not even what came a moment ago.

    Raises:
        FileExistsError: something is there and ``overwrite`` is off.
    """
    if overwrite:
        os.replace(source, target)
        return
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except FileExistsError as error:
        if not _same_file(source, target):  # of another process that does the same
            raise FileExistsError(f"{target} exists; choose another output or pass overwrite=True") from error
    except OSError:  # a file system without second names: take the name first
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError as error:
            raise FileExistsError(f"{target} exists; choose another output or pass overwrite=True") from error
        try:
            os.replace(source, target)
        except BaseException:
            target.unlink()
            raise
        return
    source.unlink(missing_ok=True)


@contextmanager
def replacing_folder(
    folder: Path, *, overwrite: bool = False, ours: Callable[[Path], bool] = lambda _: False, mode: int = 0o777
) -> Iterator[Path]:
    """An empty folder that becomes ``folder`` when the block ends, and vanishes when the block raises.

    A ``folder`` that is there goes as a whole, so that files of the old never lie among the new. See
    :func:`guard_folder` for arguments and errors, :func:`move_folder` for what a crash leaves; ``mode`` are the
    permissions, less the umask, also of the folders above it that are missing.
    """
    real = Path(os.path.realpath(folder))
    named = make_folders(real.parent, mode)
    _recover(real)
    guard_folder(folder, overwrite=overwrite, ours=ours)
    with closing(OwnedFolder(real.parent, WORKING)) as aside:
        building = aside.path / "new"
        building.mkdir(mode)
        yield building
        sync_all(building)
        move_folder(building, real, guard=partial(guard_folder, folder, overwrite=overwrite, ours=ours))
        sync_each(named[1:])


def move_folder(source: Path, folder: Path, *, guard: Callable[..., None]) -> None:
    """Rename ``source`` to ``folder``, on the same disk, in place of the folder that may be there, which is deleted.

    A crash leaves the old or the new one. Where the system cannot exchange two names at once, the old one may be found
    aside under a hidden name; the next writer of ``folder`` puts it back.

    Args:
        source: the new folder.
        folder: its place.
        guard: called with ``found=``, a place at which the old folder lies; raises where it must not be deleted. It is
            asked again when nobody can put anything into it by its name any more.

    Raises:
        FileNotFoundError: there is no ``source``.
        FileExistsError: of ``guard``; everything is as it was.
    """
    folder = Path(os.path.realpath(folder))
    _recover(folder)
    guard(found=folder)
    if not folder.exists():
        try:
            os.rename(source, folder)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            guard(found=folder)  # it came a moment ago
        else:
            sync(folder.parent)
            return
    os.stat(source)  # nothing is put aside for what is not there
    old = source if _exchange(source, folder) else _aside(folder)
    try:
        if old is not source:
            os.replace(folder, old)
        guard(found=old)
        if old is not source:
            os.replace(source, folder)
    except BaseException:
        if old is not source:
            _recover(folder)
        elif not _exchange(source, folder):
            os.replace(old, _aside(folder))  # never to be deleted with what this program has built
        raise
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def make_folders(folder: Path, mode: int = 0o777) -> tuple[Path, ...]:
    """Create a folder with those above it, where they are missing; ``mode`` are the permissions, less the umask.

    Returns:
        The folders to sync once something is in it: ``folder`` first, and those that got a new one.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode, exist_ok=True)
    folder.mkdir(exist_ok=True)  # raises where it is no folder
    return (folder, *(one.parent for one in missing))


def sync_each(folders: Iterable[Path]) -> None:
    """Make the names in some folders survive a power cut."""
    for folder in folders:
        sync(folder)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder where that can be had, survive a power cut."""
    folder = path.is_dir()
    if os.name == "nt" and folder:
        return  # Windows cannot sync a folder
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:  # of network file systems, and folders that one may write to and not read
        if not folder or error.errno not in _UNSYNCED:
            raise


def sync_all(folder: Path) -> None:
    """Make a folder with everything below it survive a power cut."""
    paths: Iterable[Path] = [*folder.rglob("*"), folder]
    with ThreadPoolExecutor(_SYNCED) as pool:
        list(pool.map(sync, paths))


@contextmanager
def _working(folder: Path) -> Iterator[Path]:
    """A place for an unfinished file on the disk of a folder; the folder itself where it has an owner already."""
    if _is_working(folder):
        yield folder
        return
    with closing(OwnedFolder(folder, WORKING)) as aside:
        yield aside.path


def _is_working(path: Path) -> bool:
    return any(part.startswith(WORKING) for part in path.parts)


def _aside(folder: Path) -> Path:
    """Where an old folder is put aside; a hash, for the name itself may fill what a file system allows."""
    return folder.with_name(f"{WORKING}{hashlib.sha256(os.fsencode(folder.name)).hexdigest()[:16]}.old")


def _recover(folder: Path) -> None:
    """Bring to an end what a crash interrupted: put back, or throw away, what lies aside."""
    aside = _aside(folder)
    if is_folder(aside):
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, folder)


def _exchange(left: Path, right: Path) -> bool:
    """Let two names change places in one step; ``False`` where system or file system cannot."""
    rename, here = _rename_exchange(), _HERE.get(sys.platform)
    return rename is not None and rename(here, os.fsencode(left), here, os.fsencode(right), _EXCHANGE) == 0


@cache
def _rename_exchange() -> Any:
    names = {"linux": "renameat2", "darwin": "renameatx_np"}  # renameat2(2) since Linux 3.15, macOS 10.12
    try:
        function = getattr(ctypes.CDLL(None, use_errno=True), names[sys.platform])
    except (KeyError, OSError, AttributeError, TypeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function


def _same_file(left: Path, right: Path) -> bool:
    if left.absolute() == right.absolute() or left.resolve() == right.resolve():
        return True
    try:
        return left.samefile(right)
    except OSError:
        return False
