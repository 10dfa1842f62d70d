"""Folders for what is unfinished, whose owner can be told dead or alive: what a killed process left is removed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import uuid
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

from monai_sasm.errors import RefusedError
from monai_sasm.io.lock import lock
from monai_sasm.io.nofollow import is_folder, open_regular

_OWNER = "owner"
_NAME = "[0-9a-f]{16}"


class OwnedFolder:
    """A new folder of this process alone, which nobody else may look into, until :meth:`close`.

    Those of the same place and prefix whose processes were killed are removed first, see :func:`remove_abandoned`.

    Args:
        parent: where it lies.
        prefix: begin of its name.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        remove_abandoned(parent, prefix)
        self.path = parent / f"{prefix}{secrets.token_hex(8)}"
        self.path.mkdir(0o700)
        self._owner = os.fdopen(os.open(self.path / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b")
        with suppress(OSError):  # a file system without locks: nobody can ever tell that the owner is gone
            lock(self._owner.fileno(), wait=True)  # others hold it for as long as they look
            self._owner.write(_here())
            self._owner.flush()
            os.fsync(self._owner.fileno())

    def close(self) -> None:
        """Delete it with all that is in it."""
        self.disown()
        shutil.rmtree(self.path, ignore_errors=True)

    def disown(self) -> None:
        """Leave it to its user: nobody removes it any more."""
        with suppress(OSError, ValueError):  # it is gone, or closed
            self._owner.truncate(0)
        self._owner.close()
        with suppress(OSError):
            (self.path / _OWNER).unlink(missing_ok=True)


def temporary() -> Path:
    """The system's folder for temporary files, without links."""
    return Path(tempfile.gettempdir()).resolve()


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Delete the folders of :class:`OwnedFolder` whose processes were killed; once for each process and place.

    Only what was certainly left behind goes. Its owner locks a file in it for as long as it lives, and writes down on
    which machine it runs once the lock is had. So where that stands and the lock is free, the owner had it and is dead.
    That much holds on one machine: some network drives keep locks to the machine that took them, and the machine that
    serves a drive does not see those of others. So only what was made on this very machine is looked at. Nothing is
    followed or touched that is a link or another user's.
    """
    _remove_abandoned(Path(os.path.abspath(parent)), prefix)


@lru_cache(maxsize=256)
def _remove_abandoned(parent: Path, prefix: str) -> None:
    wanted = re.compile(re.escape(prefix) + _NAME)
    with suppress(OSError):  # a folder that may be written to and not listed
        for name in os.listdir(parent):
            if wanted.fullmatch(name) and _is_abandoned(parent / name):
                shutil.rmtree(parent / name, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    try:
        if not is_folder(folder) or not _is_own(folder.lstat()):
            return False
        with os.fdopen(open_regular(folder / _OWNER, os.O_RDWR), "r+b") as file:
            if not _is_own(os.fstat(file.fileno())):
                return False
            lock(file.fileno())
            return file.read(1000) == _here()
    except (OSError, RefusedError):  # its owner lives, or it is none of ours
        return False


def _is_own(found: os.stat_result) -> bool:
    return os.name == "nt" or found.st_uid == os.geteuid()


@cache
def _here() -> bytes:
    """This machine, by its name and its number; containers of one name on several machines differ in the latter."""
    try:
        number = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        number = ""
    return hashlib.sha256(f"{socket.gethostname()} {number or uuid.getnode()}".encode()).hexdigest().encode()
