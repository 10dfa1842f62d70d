"""One run per output folder: a lock that the operating system drops when its holder dies."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_sasm.io.nofollow import open_regular

logger = logging.getLogger(__name__)


class HeldError(RuntimeError):
    """Another run holds the lock; the message says which."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` (created when missing) for the length of the block.

    The file stays; only the lock on it counts, which the system drops with its process, also after ``kill -9``. On a
    file system without locks (Lustre mounted without ``flock``) a warning is logged and the block runs unprotected.

    Raises:
        HeldError: another process holds it.
        RefusedError: it is a link or no file.
    """
    with os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+b") as file:
        try:
            _lock(file.fileno())
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                file.seek(0)
                holder = file.read(200).decode(errors="replace").strip() or "unknown"
                raise HeldError(
                    f"another run writes into {path.parent.parent} ({holder}); wait for it, or choose another output"
                ) from None
            logger.warning("this file system knows no locks: do not start a second run on the same output")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        file.flush()
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # far behind the text, which others may then read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
