"""Who may read a result: those who may read its source, less the umask, as of a copy by ``cp``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def file_mode(sources: Iterable[Path]) -> int:
    """Permissions to create a file with, from which the system takes the umask: what all its sources allow.

    Never to be executed; of no source ``0o666``, as of any new file, and of one that is gone for the owner only.
    """
    return _common(set(sources), 0o666)


def folder_mode(sources: Iterable[Path]) -> int:
    """The same of a folder, by the folders of its sources, or by sources that are folders.

    To its owner all is allowed, or nothing could be put into it, and it not be put into its place.
    """
    return _common({path if path.is_dir() else path.parent for path in sources}, 0o777) | 0o700


def _common(paths: Iterable[Path], bits: int) -> int:
    if os.name == "nt":
        return bits
    for path in paths:
        try:
            bits &= path.stat().st_mode
        except OSError:
            bits &= 0o700
    return bits
