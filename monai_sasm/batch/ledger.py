"""The ledger: what of a batch is under way, what is decided and what is done, as files that survive any crash.

::

    OUT/.sasm-batch/made-here       by which program, and which folder this is: a ledger that came with data is refused
    OUT/.sasm-batch/lock            see lock.py
    OUT/.sasm-batch/starts/ID       one byte per start of a task that has not ended
    OUT/.sasm-batch/staging/RUN/..  results being written
    OUT/.sasm-batch/ready/ID/       a whole result with its record: from here on it counts; only moving is left
    OUT/.sasm-batch/done/ID.json    the record of a result that lies in its place

The commit is one rename, from ``staging`` to ``ready``. It succeeds once per task however often a scheduler runs it,
and whoever finds something in ``ready`` finishes moving it. So a result is never half there for longer than a crash
lasts, and never there twice.

Results may lie inside a data set, and a data set may bring such a folder along. So no link is followed, every name in a
record is checked to lie below OUT, and a ledger that another user owns or that was not made here is refused.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sasm.batch.moving import changed, files_of, guard_file, move, move_to_free, move_whole, removed, untouched
from monai_sasm.errors import RefusedError
from monai_sasm.io.commit import WORKING, guard_folder, make_folders, replacing, sync, sync_all, sync_each
from monai_sasm.io.nofollow import (
    inside,
    is_folder,
    make_folder,
    open_regular,
    owner_here,
    read_regular,
    refuse_links_inside,
)
from monai_sasm.io.permissions import folder_mode
from monai_sasm.io.placing import whole_parts
from monai_sasm.restoration.targets import is_result

FOLDER = ".sasm-batch"
_FILES, _RECORD, _MARK = "files", "record.json", "made-here"
_MOST = 64 << 20  # bytes of a record
_IDENTITY = re.compile(r"[\w-]{1,100}", re.ASCII)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ledger:
    """The ledger of one output folder.

    Args:
        output: the folder results go to.
    """

    output: Path

    @property
    def folder(self) -> Path:
        """Where the ledger lies."""
        return self.output / FOLDER

    def open(self, sources: Collection[Path] = (), *, adopt: bool = False) -> None:
        """Create what is missing.

        Args:
            sources: files and folders of images; an output that is made is open to nobody to whom theirs are not.
            adopt: take over a ledger that was not made in this place, such as one that was copied with its results.

        Raises:
            RefusedError: the ledger belongs to another user, was not made here, or holds links.
            OSError: the output cannot be written to.
        """
        make_folders(self.output, folder_mode(sources))
        make_folder(self.folder)
        if self.folder.lstat().st_uid != owner_here(self.output):
            raise RefusedError(f"another user owns {self.folder}; let that user go on, or choose another output folder")
        mark = json.dumps({"program": "monai_sasm", "folder": self.folder.lstat().st_ino}).encode()
        if self._mark() != mark:
            # the mark comes first of all: what another run does at this moment is not foreign
            there = [one.name for one in self.folder.iterdir() if not one.name.startswith(WORKING)]
            if there and not adopt and self._mark() != mark:
                raise RefusedError(
                    f"{self.folder} was not made here by this program: it came with the data, or was copied. Remove "
                    "it, choose another output folder, or pass adopt=True if you know where it comes from"
                )
            with replacing(self.folder / _MARK) as file:
                file.write(mark)
        for name in ("starts", "staging", "ready", "done"):
            make_folder(self.folder / name)

    def _mark(self) -> bytes | None:
        try:
            return read_regular(self.folder / _MARK, most=1000)
        except (FileNotFoundError, RefusedError):
            return None

    def recover(self) -> None:
        """Finish what earlier runs decided, and throw away what they did not; only under the lock."""
        for ready in sorted((self.folder / "ready").iterdir()):
            try:
                self.settle(ready.name)
            except (RefusedError, FileExistsError) as error:
                known = ready.name if _IDENTITY.fullmatch(ready.name) else "an entry"
                logger.warning("%s of the ledger's ready folder is left as it is: %s", known, error)
        for left in (self.folder / "staging").iterdir():
            if is_folder(left):
                # at a stroke: a worker that outlives the head of its run may still be writing into it
                gone = left.with_name(f"{secrets.token_hex(8)}.gone")
                with suppress(OSError):
                    left = left.replace(gone)
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def record(self, identity: str, *, whole: bool = True) -> dict[str, Any] | None:
        """The record of a task whose result lies in its place: ``row``, ``key`` and ``units``; ``None`` without.

        Args:
            identity: of the task.
            whole: every file of the result must be there; ``False``: also if somebody has removed some, or all.
        """
        try:
            record = _checked(read_regular(self.folder / "done" / f"{_plain(identity)}.json", _MOST))
            if whole and not all(file.exists() for file in self._files(record)):
                return None
        except (FileNotFoundError, RefusedError):  # no record that can be relied on: the task is run again
            return None
        return record if {"key", "row"} <= set(record) else None

    def identities(self) -> frozenset[str]:
        """The tasks of which there is a record; none where there is no ledger."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return frozenset(name.removesuffix(".json") for name in os.listdir(self.folder / "done"))
        return frozenset()

    def _files(self, record: dict[str, Any]) -> list[Path]:
        """Of a result, by its record."""
        return [
            place for unit, names in record["units"].items() for place in files_of(inside(self.output, unit), names)
        ]

    def changed(self, identity: str) -> list[Path]:
        """The files of a task's result that are not as it left them; those that are gone do not count.

        Raises:
            RefusedError: a link stands on the way to one.
        """
        record, until = self.record(identity, whole=False) or {"units": {}}, self._recorded(identity)
        return [file for file in self._files(record) if os.path.lexists(file) and not untouched(file, until)]

    def start(self, identity: str) -> int:
        """Note that a task starts; returns how often it has started without reaching an end, this one included."""
        descriptor = open_regular(self.folder / "starts" / _plain(identity), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    def deaths(self, identity: str) -> int:
        """How often a task has started without reaching an end."""
        try:
            return (self.folder / "starts" / _plain(identity)).lstat().st_size
        except FileNotFoundError:
            return 0

    def end(self, identity: str) -> None:
        """Note that a task has come to an end, whichever."""
        with suppress(FileNotFoundError):
            (self.folder / "starts" / _plain(identity)).unlink()

    @contextmanager
    def staging(self, run: str, identity: str) -> Iterator[Path]:
        """A fresh folder, laid out like the output, for the results of one task; gone after the block.

        :meth:`recover` of another process may throw it away before. What is written there afterwards is not whole, and
        :meth:`commit` tells it by the record, which is there from the beginning.
        """
        folder = self.folder / "staging" / run / f"{_plain(identity)}-{secrets.token_hex(4)}"
        (folder / _FILES).mkdir(parents=True)
        (folder / _RECORD).touch()
        try:
            yield folder / _FILES
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit(self, identity: str, staged: Path, record: dict[str, Any], *, overwrite: bool = False) -> dict[str, Any]:
        """Let the staged results count, with their record, and move them into place.

        Args:
            identity: of the task.
            staged: from :meth:`staging`. Folders that hold files are moved as one.
            record: with ``row`` and ``key``.
            overwrite: replace what is there and is not this task's earlier result, as it was left; DICOM files in a
                series folder only where this program derived them.

        Returns:
            The record that counts: another process may have been faster.

        Raises:
            FileExistsError: something else is there and ``overwrite`` is off, or it is nothing that may be replaced.
            RefusedError: a link stands on the way to the place of a result, or another run took this one for dead and
                has thrown away what was staged.
        """
        self.settle(identity)
        done = self.record(identity)
        if done is not None and done["key"] == record["key"] and done["row"]["run"] == record["row"]["run"]:
            return done  # the scheduler ran it twice, and the other one was faster
        units = {path.relative_to(staged).as_posix(): _names(path) for path in whole_parts(staged)}
        places = {unit: inside(self.output, unit) for unit in units}
        mine, until = (self.record(identity, whole=False) or {"units": {}})["units"], self._recorded(identity)
        taken = [unit for unit in units if unit not in mine and places[unit].exists()]
        if taken and not overwrite:
            raise FileExistsError(f"{self.output / taken[0]} exists; choose another output or pass overwrite=True")
        for unit, place in places.items():
            if place.exists() and place.is_dir() != (staged / unit).is_dir():
                raise FileExistsError(f"{place} is no result of this kind; move it away")
            if unit in mine:
                own, series = {*files_of(place, mine[unit])}, bool(units[unit])
                for file in files_of(place, units[unit]):
                    if not (file in own and untouched(file, until)):
                        guard_file(file, overwrite=overwrite, series=series)
            elif units[unit]:
                guard_folder(place, overwrite=overwrite, ours=is_result)
        new = [unit for unit in units if unit not in mine and not overwrite]  # nothing may be there when they are moved
        content = record | {"units": units, "new": new}
        try:
            with open(staged.parent / _RECORD, "r+", encoding="utf-8") as begun:
                begun.write(json.dumps(content, default=str))
            sync_all(staged.parent)
        except FileNotFoundError:
            raise RefusedError(
                "another run took this one for dead and threw away what it had made of this image; pass resume=True"
            ) from None
        try:
            os.rename(staged.parent, self.folder / "ready" / identity)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        self.settle(identity)
        return self.record(identity) or record

    def settle(self, identity: str) -> None:
        """Move a committed result into its place; nothing happens where there is none, or when it is half moved.

        Raises:
            FileExistsError: something has come to a place that was free; the result is given up.
            RefusedError: what is there is no result that this program committed, or a link stands on its way.
        """
        ready = self.folder / "ready" / _plain(identity)
        if not os.path.lexists(ready):
            return
        if not is_folder(ready):
            raise RefusedError("it is a link or a file where a folder must be; remove it")
        try:
            record = _checked(read_regular(ready / _RECORD, _MOST))
        except FileNotFoundError:
            shutil.rmtree(ready, ignore_errors=True)
            return
        with suppress(FileNotFoundError):  # another process may be moving the same
            refuse_links_inside(ready)
        units, new = record["units"], record.get("new", [])
        mine = (self.record(identity, whole=False) or {"units": {}})["units"]
        moves = [(ready / _FILES / unit, inside(self.output, unit), unit) for unit in units]
        named: set[Path] = set()
        try:
            for source, target, unit in moves:
                named.update(make_folders(target.parent, folder_mode([source.parent])))
                if unit in new:
                    move_to_free(source, target)
                elif units[unit] and unit not in mine:
                    move_whole(source, target)
                else:
                    move(source, target, units[unit])
                    named.update([target] if units[unit] else [])
        except FileExistsError:
            shutil.rmtree(ready, ignore_errors=True)
            raise
        sync_each(named)
        self._remove_earlier(identity, record)  # before its record goes, so that a crash is made up for
        with suppress(FileNotFoundError):
            os.replace(ready / _RECORD, self.folder / "done" / f"{identity}.json")
        sync(self.folder / "done")
        shutil.rmtree(ready, ignore_errors=True)

    def _recorded(self, identity: str) -> int:
        """When the record of a task's earlier result was made, ns; 0 without."""
        try:
            return changed((self.folder / "done" / f"{identity}.json").lstat())
        except FileNotFoundError:
            return 0

    def _remove_earlier(self, identity: str, new: dict[str, Any]) -> None:
        """Delete what a task's earlier result has and the new one has not: maps, slices, or objects with other UIDs.

        What was changed after the earlier record, by a user or as the result of another task, is nobody's to delete.
        """
        earlier, until = self.record(identity, whole=False), self._recorded(identity)
        if earlier is None:
            return
        left = 0
        for unit, names in earlier["units"].items():
            kept = new["units"].get(unit)
            if kept is not None and not (names and kept):
                continue
            try:
                place = inside(self.output, unit)
            except RefusedError:
                left += 1
                continue
            old = [file for file in files_of(place, names) if file.name not in (kept or ())]
            left += sum(not removed(file, until) for file in old)
            if names and kept is None:
                with suppress(OSError):  # it holds something else
                    place.rmdir()
        if left:
            logger.warning("%s: %d file(s) of its earlier result were changed since and are left there", identity, left)


def _plain(identity: str) -> str:
    """A task's identity as the name of a file."""
    if not _IDENTITY.fullmatch(identity):
        raise RefusedError("its name is no identity of a task; remove it from the ledger")
    return identity


def _checked(content: bytes) -> dict[str, Any]:
    """A record whose units are names below the output.

    Raises:
        RefusedError: it is none.
    """
    try:
        record = json.loads(content)
        for unit, names in record["units"].items():
            inside(Path(), unit)
            if unit.split("/")[0] == FOLDER or not all(isinstance(name, str) and name == _name(name) for name in names):
                raise ValueError
        if not isinstance(record.get("row", {}), dict) or not isinstance(record.get("new", []), list):
            raise TypeError
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise RefusedError("its record is damaged, or names places outside of the output folder; remove it") from None
    return dict(record)


def _name(name: str) -> str:
    return inside(Path(), name).name


def _names(unit: Path) -> list[str]:
    """The files in a folder that is moved as one; nothing for a file."""
    return sorted(path.name for path in unit.iterdir()) if unit.is_dir() else []
