"""A lock on a file that the operating system drops when the process that holds it dies, also after ``kill -9``."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    def lock(descriptor: int, *, wait: bool = False) -> None:
        """Lock an open file, which other processes may go on to read; raises ``OSError`` where that cannot be had."""
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # far behind the text
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def lock(descriptor: int, *, wait: bool = False) -> None:
        """Lock an open file, which other processes may go on to read; raises ``OSError`` where that cannot be had."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
