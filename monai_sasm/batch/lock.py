"""One process per folder: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_sasm.io.lock import lock
from monai_sasm.io.nofollow import open_regular

logger = logging.getLogger(__name__)


class LockedError(RuntimeError):
    """Another process holds the lock; the message says which."""


@contextmanager
def exclusive(folder: Path, path: Path) -> Iterator[None]:
    """Keep a folder to this process for the length of the block, by a lock on the file ``path``, created when missing.

    The file stays; only the lock on it counts, which the system drops with its process, also after ``kill -9``. On a
    file system without locks (Lustre mounted without ``flock``) a warning is logged and the block runs unprotected.

    Raises:
        LockedError: another process holds it.
        RefusedError: it is a link or no file.
    """
    with os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+b") as file:
        try:
            lock(file.fileno())
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip() or "unknown"
                raise LockedError(
                    f"another process uses {folder} ({holder}); wait for its end or stop it, or choose another folder"
                ) from None
            logger.warning("this file system knows no locks: do not start a second process on %s", folder.name)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield
