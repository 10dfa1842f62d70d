"""What becomes of a received series when it is restored; apart, so that the node need not load the networks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True)
class Outcome:
    """What became of one folder.

    Args:
        written: derived files.
        refused: files that were not restored, with the reason.
    """

    written: int
    refused: tuple[tuple[tuple[Path, ...], str], ...]


class Restores(Protocol):
    """Turns received files into derived ones, as :class:`monai_sasm.node.restorer.SeriesRestorer` does."""

    @property
    def digest(self) -> str:
        """Hexadecimal digest of models and options: equal digests give equal UIDs."""

    def __call__(self, source: Path, derived: Path, progress: Callable[[int], None]) -> Outcome:
        """Restore every series in ``source`` into a folder of its own below ``derived``.

        Args:
            source: folder of what was received.
            derived: folder, there already.
            progress: called now and then with the number of slices or tiles done since.
        """


def is_disk_fault(error: BaseException) -> bool:
    """Whether the machine cannot write at the moment: no fault of the series, which is tried again for ever."""
    return isinstance(error, OSError) and error.errno in _DISK


def is_system_fault(error: BaseException) -> bool:
    """The same, or a file that cannot be read or written now (``EIO``): tried again, but not for ever."""
    return isinstance(error, OSError) and error.errno in {*_DISK, errno.EIO, errno.ESTALE, errno.ENOMEM}
