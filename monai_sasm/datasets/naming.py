"""Names of files and folders in the order people count them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key under which ``pat2`` comes before ``pat10``; case does not count."""
    parts = re.split(r"(\d+)", name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part]


def selected(names: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    """The names to use: those of ``include``, or all when it is empty, less those of ``exclude``; order kept.

    Raises:
        FileNotFoundError: ``include`` or ``exclude`` names what is not there, so that a typing error in the list of a
            test set cannot let its subjects into the training.
    """
    unknown = sorted((set(include) | set(exclude)) - set(names))
    if unknown:
        raise FileNotFoundError(f"no subject named {', '.join(unknown)}; there are {', '.join(names[:5])}, ...")
    return [name for name in names if (not include or name in include) and name not in exclude]


def existing(root: str | Path) -> Path:
    """``root`` as a path.

    Raises:
        FileNotFoundError: it is no folder.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give the one the data set was unpacked into")
    return folder
