"""The files below a folder, each with a reason where it is not to be read; nothing is passed over in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from monai_sasm.io.commit import WORKING

OUTSIDE = "a symbolic link that leads out of the input folder is not followed; copy the file into the folder"
NOWHERE = "a symbolic link that leads nowhere: fetch the file it stands for, or remove it"
LOCKED = "a folder that cannot be looked into: its files are not restored; change its permissions"


UNREADABLE = frozenset({NOWHERE, LOCKED})
"""Reasons that mean a failure: what may have been an image is out of reach."""


def files_below(path: Path) -> Iterator[tuple[Path, str | None]]:
    """Each file and ``None``, or a link or folder and why it is not read; in the order of names, folder by folder.

    Linked folders inside the tree are met on their own. Pipes and devices are no files; unfinished results and other
    bookkeeping of this program (:data:`~monai_sasm.io.commit.WORKING`) are no input.
    """
    if path.is_file():
        yield path, None
        return
    locked: list[Path] = []
    root = path.resolve()
    for folder, subfolders, names in os.walk(path, onerror=lambda error: locked.append(Path(error.filename))):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(WORKING))
        for name in sorted([*names, *(sub for sub in subfolders if Path(folder, sub).is_symlink())]):
            if name.startswith(WORKING):
                continue
            file = Path(folder, name)
            reason = _astray(file, root) if file.is_symlink() else None
            if reason or file.is_file():
                yield file, reason
    for place in locked:
        yield place, LOCKED


def is_hidden(path: Path) -> bool:
    """Of files that file managers leave behind: ``.DS_Store``, ``._scan.nii.gz``."""
    return path.name.startswith(".")


def _astray(link: Path, root: Path) -> str | None:
    try:
        goal = link.resolve()
        exists = goal.exists()
    except (OSError, RuntimeError):  # links in a circle
        return NOWHERE
    if root not in goal.parents and goal != root:
        return OUTSIDE
    return None if exists else NOWHERE
