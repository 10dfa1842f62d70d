"""What becomes of a received series when it is restored; apart, so that the node need not load the networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


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
    """Turns received files into derived ones, as :class:`monai_sasm.node.restorer.Restorer` does."""

    @property
    def digest(self) -> str:
        """Hexadecimal digest of models and options: equal digests give equal UIDs."""

    def __call__(self, source: Path, derived: Path) -> Outcome:
        """Restore every series in ``source`` into a folder of its own below ``derived``."""
