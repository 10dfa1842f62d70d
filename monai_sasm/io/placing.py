"""The files of one result are written aside and then moved into place together: all of them, or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from monai_sasm.io.commit import WORKING, guard_folder, make_folders, move_file, move_folder, sync_each
from monai_sasm.io.nofollow import inside
from monai_sasm.io.owned_folder import OwnedFolder
from monai_sasm.io.permissions import folder_mode


@contextmanager
def staged(folder: Path, like: Collection[Path] = ()) -> Iterator[Path]:
    """An empty folder whose content goes to ``folder`` by :func:`place`; on the same disk, gone after the block.

    Where ``folder`` is missing it is made, open to nobody to whom those are not that it is ``like``.
    """
    make_folders(folder, folder_mode(like))
    aside = OwnedFolder(folder, WORKING)
    (aside.path / "new").mkdir()
    try:
        yield aside.path / "new"
    finally:
        shutil.rmtree(aside.path / "new", ignore_errors=True)
        aside.disown()
        with suppress(OSError):  # should moving back have failed, too, what was replaced is kept there
            aside.path.rmdir()


def whole_parts(folder: Path) -> Iterator[Path]:
    """What is moved as one: DICOM series folders, and files beside folders."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not any(path.glob("*.dcm")):
            yield from whole_parts(path)
        else:
            yield path


def place(staging: Path, folder: Path, *, overwrite: bool, ours: Callable[[Path], bool]) -> None:
    """Move what lies in a staging folder to the same places in another one; where that fails, nothing has moved.

    Args:
        staging: from :func:`staged`; at most one series folder and any number of files.
        folder: where they go.
        overwrite: replace files of these names, and a series folder that holds nothing but earlier results.
        ours: whether a file in a series folder is an earlier result.

    Raises:
        FileExistsError: something is in the way.
        RefusedError: a link is in the place of a result or on the way to it.
    """
    moves = [(path, inside(folder, path.relative_to(staging).as_posix())) for path in whole_parts(staging)]
    moves.sort(key=lambda move: move[0].is_dir())  # a series goes last: it cannot be moved back
    for path, target in moves:
        if path.is_dir():
            guard_folder(target, overwrite=overwrite, ours=ours)
        elif target.is_dir():
            raise FileExistsError(f"{target} is a folder where a file must be; move it away")
        elif target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists; choose another output or pass overwrite=True")
    replaced = staging.parent / "old"
    replaced.mkdir()
    done: list[tuple[Path, Path]] = []
    named: set[Path] = set()
    try:
        for number, (path, target) in enumerate(moves):
            named.update(make_folders(target.parent, folder_mode([path.parent])))
            if path.is_dir():
                move_folder(path, target, guard=partial(guard_folder, target, overwrite=overwrite, ours=ours))
                continue
            if overwrite and target.exists():
                done.append((_kept(target, replaced / str(number)), target))
            move_file(path, target, overwrite=overwrite)
            done.append((target, path))
    except BaseException:
        for now, before in reversed(done):
            os.replace(now, before)
        shutil.rmtree(replaced, ignore_errors=True)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
    sync_each(named)


def _kept(target: Path, old: Path) -> Path:
    """A second name for a file that another will replace at a stroke, or a copy of it."""
    try:
        os.link(target, old)
    except OSError:  # a file system without second names
        shutil.copy2(target, old)
    return old
