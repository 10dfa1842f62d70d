"""Work on one image at a time, in a thread of its own, that can be watched, cancelled and collected.

MONAI Label answers every request in the one thread of its event loop, so a request that restores for a minute keeps it
from answering any other. A job is started by one short request and watched by others.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_sasm.errors import as_commands, reason_of

Result = tuple[Path, dict[str, Any]]  # the file, and what there is to tell about it
Progress = Callable[[float], None]  # told the share that is done, 0 to 1
Work = Callable[[Progress], Result]
KEPT = 16  # jobs whose end is remembered
WAITING = 8  # jobs that may wait; each holds its image in memory


class BusyError(RuntimeError):
    """Too many jobs wait already."""


@dataclass
class Watch:
    """What both sides of a job see: how far it is, and whether it is still wanted."""

    progress: float = 0.0
    cancelled: threading.Event = field(default_factory=threading.Event)

    def advance(self, progress: float) -> None:
        """Note the share that is done, and end the work here when nobody wants it any more."""
        if self.cancelled.is_set():
            raise CancelledError
        self.progress = progress


class Jobs:
    """A queue with one worker: two images at once would only share the same processor and double the memory."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="sasm")
        self._jobs: dict[str, tuple[Watch, Future[Result]]] = {}  # in the order of their start

    def run(self, work: Work) -> Result:
        """Do the work behind what is queued already, and wait for it."""
        return self._worker.submit(work, Watch().advance).result()

    def start(self, work: Work) -> str:
        """Queue the work; the name under which it can be asked for.

        Raises:
            BusyError: too many jobs wait already.
        """
        if sum(not future.done() for _, future in self._jobs.values()) > WAITING:
            raise BusyError(f"{WAITING} images wait already; ask again when some are done")
        name, watch = secrets.token_hex(8), Watch()
        future = self._worker.submit(work, watch.advance)
        future.add_done_callback(lambda done: _drop(done) if watch.cancelled.is_set() else None)
        self._jobs[name] = watch, future
        self._forget()
        return name

    def state(self, name: str) -> dict[str, Any]:
        """``state`` (queued, running, done, failed, cancelled), ``progress`` 0 to 1, and ``reason`` of a failure.

        Raises:
            KeyError: there is no such job (any more).
        """
        watch, future = self._jobs[name]
        report: dict[str, Any] = {"progress": watch.progress}
        if watch.cancelled.is_set():
            return report | {"state": "cancelled"}
        if not future.done():
            return report | {"state": "running" if future.running() else "queued"}
        error = future.exception()
        return {"state": "done", "progress": 1.0} if error is None else _failed(report, error)

    def cancel(self, name: str) -> None:
        """Have a job end before its next slice, and drop its result if there is one already.

        Raises:
            KeyError: there is no such job (any more).
        """
        watch, future = self._jobs[name]
        watch.cancelled.set()
        if not future.cancel() and future.done():
            _drop(future)

    def take(self, name: str) -> Result:
        """The result of a job that is done; the job is forgotten, its file is the caller's.

        Raises:
            KeyError: there is no such job (any more).
            ValueError: it is not done.
        """
        state = self.state(name)["state"]
        if state != "done":
            raise ValueError(f"only a job that is done has a result, this one is {state}; ask for its state first")
        return self._jobs.pop(name)[1].result()

    def close(self) -> None:
        """Begin nothing more, and end what is under way before its next slice."""
        for watch, _ in list(self._jobs.values()):
            watch.cancelled.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _forget(self) -> None:
        """Drop the oldest ended jobs, and the files nobody has come for."""
        ended = [name for name, (_, future) in self._jobs.items() if future.done()]
        for name in ended[: max(0, len(self._jobs) - KEPT)]:
            _drop(self._jobs.pop(name)[1])


def _failed(report: dict[str, Any], error: BaseException) -> dict[str, Any]:
    return report | {"state": "failed", "reason": as_commands(reason_of(error), "sasm label-server")}


def _drop(future: Future[Result]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result()[0].unlink(missing_ok=True)
