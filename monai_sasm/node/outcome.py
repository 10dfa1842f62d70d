"""What becomes of a received series when it is restored; apart, so that the node need not load the networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from monai_sasm.errors import DISK_FAULTS, MEMORY_FAULTS, error_name


@dataclass(frozen=True)
class Outcome:
    """What became of one folder.

    Args:
        written: derived files.
        refused: files that should have been restored and were not, with the reason.
        passed: files that are rightly passed over (localizers, phase, own results), with the reason.
    """

    written: int
    refused: tuple[tuple[tuple[Path, ...], str], ...]
    passed: tuple[tuple[tuple[Path, ...], str], ...] = ()


class NoMemoryError(RuntimeError):
    """The memory of the machine or of the accelerator did not suffice."""


class Restores(Protocol):
    """Turns received files into derived ones, as :class:`monai_sasm.node.restorer.SeriesRestorer` does."""

    @property
    def digest(self) -> str:
        """Hexadecimal digest of models and options: equal digests give equal UIDs."""

    def __call__(self, source: Path, derived: Path, progress: Callable[[float], object]) -> Outcome:
        """Restore every series in ``source`` into a folder of its own below ``derived``.

        Args:
            source: folder of what was received.
            derived: folder, there already.
            progress: called now and then with the part of a series that was done since.
        """


def is_disk_fault(error: BaseException) -> bool:
    """Whether the disk is full or failing: no fault of the series, which is tried again."""
    return error_name(error) in DISK_FAULTS


def is_memory_fault(error: BaseException) -> bool:
    """Whether memory did not suffice, which another program may have for now."""
    return isinstance(error, NoMemoryError) or error_name(error) in MEMORY_FAULTS


def is_disk_full(error: BaseException) -> bool:
    """Whether nothing can be written at the moment: tried again for ever, where a failing disk is given up one day."""
    return error_name(error) in DISK_FAULTS - {"EIO"}
