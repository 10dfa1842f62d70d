"""The ledger: what of a batch is under way, what is decided and what is done, as files that survive any crash.

::

    OUT/.sasm-batch/lock            see lock.py
    OUT/.sasm-batch/starts/ID       one byte per start of a task that has not ended
    OUT/.sasm-batch/staging/RUN/..  results being written
    OUT/.sasm-batch/ready/ID/       a whole result with its record: from here on it counts; only moving is left
    OUT/.sasm-batch/done/ID.json    the record of a result that lies in its place

The commit is one rename, from ``staging`` to ``ready``. It succeeds once per task however often a scheduler runs it,
and whoever finds something in ``ready`` finishes moving it. So a result is never half there for longer than a crash
lasts, and never there twice.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_sasm.batch.placing import whole_parts

FOLDER = ".sasm-batch"
_FILES, _RECORD = "files", "record.json"
_SYNCED = 8  # files at a time


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

    def open(self) -> None:
        """Create what is missing.

        Raises:
            OSError: the output cannot be written to.
        """
        for name in ("starts", "staging", "ready", "done"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def recover(self) -> None:
        """Finish what earlier runs decided, and throw away what they did not; only under the lock."""
        for ready in sorted((self.folder / "ready").iterdir()):
            self.settle(ready.name)
        for left in (self.folder / "staging").iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def record(self, identity: str) -> dict[str, Any] | None:
        """The record of a task whose result lies in its place: ``row``, ``key`` and ``units``; ``None`` without."""
        record = self._record(identity)
        if record is None or not all((self.output / unit).exists() for unit in record["units"]):
            return None
        return record

    def _record(self, identity: str) -> dict[str, Any] | None:
        """The same, whether or not somebody has removed some of the result."""
        try:
            record: dict[str, Any] = json.loads((self.folder / "done" / f"{identity}.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return record

    def start(self, identity: str) -> int:
        """Note that a task starts; returns how often it has started without reaching an end, this one included."""
        with open(self.folder / "starts" / identity, "ab") as file:
            file.write(b".")
            file.flush()
            return file.tell()

    def deaths(self, identity: str) -> int:
        """How often a task has started without reaching an end."""
        try:
            return (self.folder / "starts" / identity).stat().st_size
        except FileNotFoundError:
            return 0

    def end(self, identity: str) -> None:
        """Note that a task has come to an end, whichever."""
        with suppress(FileNotFoundError):
            (self.folder / "starts" / identity).unlink()

    @contextmanager
    def staging(self, run: str, identity: str) -> Iterator[Path]:
        """A fresh folder, laid out like the output, for the results of one task; gone after the block."""
        folder = self.folder / "staging" / run / f"{identity}-{secrets.token_hex(4)}"
        (folder / _FILES).mkdir(parents=True)
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
            overwrite: replace what is there and is not this task's earlier result.

        Returns:
            The record that counts: another process may have been faster.

        Raises:
            FileExistsError: something else is there and ``overwrite`` is off.
        """
        self.settle(identity)
        done = self.record(identity)
        if done is not None and done["key"] == record["key"] and done["row"]["run"] == record["row"]["run"]:
            return done  # the scheduler ran it twice, and the other one was faster
        units = {path.relative_to(staged).as_posix(): _names(path) for path in whole_parts(staged)}
        mine = (self._record(identity) or {"units": {}})["units"]
        taken = [unit for unit in units if unit not in mine and os.path.lexists(self.output / unit)]
        if taken and not overwrite:
            raise FileExistsError(f"{self.output / taken[0]} exists; choose another output or pass --overwrite")
        for unit in units:
            if (self.output / unit).exists() and (self.output / unit).is_dir() != (staged / unit).is_dir():
                raise FileExistsError(f"{self.output / unit} is no result of this kind; move it away")
        (staged.parent / _RECORD).write_text(json.dumps(record | {"units": units}, default=str), encoding="utf-8")
        _sync(staged.parent)
        try:
            os.rename(staged.parent, self.folder / "ready" / identity)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        self.settle(identity)
        return self.record(identity) or record

    def settle(self, identity: str) -> None:
        """Move a committed result into its place; nothing happens where there is none, or when it is half moved."""
        ready = self.folder / "ready" / identity
        try:
            units = json.loads((ready / _RECORD).read_bytes())["units"]
        except FileNotFoundError:
            shutil.rmtree(ready, ignore_errors=True)
            return
        for unit, names in units.items():
            _move(ready / _FILES / unit, self.output / unit, names)
        with suppress(FileNotFoundError):
            os.replace(ready / _RECORD, self.folder / "done" / f"{identity}.json")
        shutil.rmtree(ready, ignore_errors=True)


def _names(unit: Path) -> list[str]:
    """The files in a folder that is moved as one; nothing for a file."""
    return sorted(path.name for path in unit.iterdir()) if unit.is_dir() else []


def _move(source: Path, target: Path, names: list[str]) -> None:
    """Rename into place. Files of an existing series folder are replaced one by one, and the others of the old go.

    What is missing has been moved already, before a crash or by another process.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if not target.is_dir():
            os.replace(source, target)
            return
    for name in names:
        with suppress(FileNotFoundError):
            os.replace(source / name, target / name)
    for old in target.glob("IM*.dcm"):
        if names and old.name not in names:
            old.unlink()


def _sync(folder: Path) -> None:
    """Have all files on the disk; several at a time, since each waits for the disk."""
    with ThreadPoolExecutor(_SYNCED) as pool:
        list(pool.map(_sync_file, (path for path in folder.rglob("*") if path.is_file())))


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
