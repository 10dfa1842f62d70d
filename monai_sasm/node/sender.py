"""From the spool to every destination: what has been taken is noted, what failed is tried again, later and later."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from monai_sasm.node.config import NodeConfig, Peer
from monai_sasm.node.counters import Counters
from monai_sasm.node.deliver import NotTakenError, UnreachableError, deliver, sop_instance
from monai_sasm.node.spool import Job, Spool

MAX_RETRY_SECONDS = 600.0
MAX_REFUSALS = 3
"""So often may a destination refuse objects of a job for good, before the job is set aside."""

logger = logging.getLogger(__name__)


class Sender:
    """Sends the jobs in ``outgoing`` to all destinations.

    Args:
        config: destinations, own AE title, first pause between attempts.
        spool: where the jobs lie.
        counters: is told what was sent and what failed.
        delivered: called with a job that every destination has, and the number of its files.
        set_aside: called with a job that a destination refuses for good, and the reason; must quarantine it.
    """

    def __init__(
        self,
        config: NodeConfig,
        spool: Spool,
        counters: Counters,
        delivered: Callable[[Job, int], None],
        set_aside: Callable[[Job, str], None],
    ) -> None:
        self._config, self._spool, self._counters = config, spool, counters
        self._delivered, self._set_aside = delivered, set_aside
        self._due: dict[str, float] = {}  # destination, or destination and job -> not before
        self._wakes: dict[str, float] = {}  # job -> when to look at it again; a long queue is not read over and over
        self._failures: Counter[str] = Counter()  # the same -> failures in a row
        self.unreachable: dict[str, str] = {}
        """Destination -> why it took nothing at the last attempt."""

    def send_due(self) -> bool:
        """Send every job whose destinations are due; whether any got further."""
        progress = False
        for job in self._spool.jobs("outgoing"):
            if time.monotonic() >= self._wakes.get(job.name, 0):
                progress |= self._send(job)
        return progress

    def _send(self, job: Job) -> bool:
        try:
            uids = {file: sop_instance(file) for file in job.files()}
        except ValueError as error:
            self._give_up(job, f"{error}; move its job to ready/ without derived/")
            return True
        before = job.sent()
        waiting = []
        for peer in self._config.destinations:
            missing = [file for file, uid in uids.items() if (peer.name, uid) not in before]
            if missing and not self._send_to(peer, job, missing):
                waiting.append(peer)
        if not waiting:
            self._forget(job)
            self._spool.delivered(job)
            self._delivered(job, len(uids))
            return True
        for peer in waiting:
            refusals = self._failures[_pair(peer, job)]
            if refusals >= MAX_REFUSALS:
                self._give_up(job, f"{peer.name} refused objects {refusals} times: {self.unreachable.get(peer.name)}")
                return True
        self._wakes[job.name] = min(self._due_time(peer, job) for peer in waiting)
        return job.sent() != before

    def _give_up(self, job: Job, reason: str) -> None:
        self._forget(job)
        self._set_aside(job, reason)

    def _forget(self, job: Job) -> None:
        self._wakes.pop(job.name, None)
        for peer in self._config.destinations:
            self._due.pop(_pair(peer, job), None)
            self._failures.pop(_pair(peer, job), None)

    def _due_time(self, peer: Peer, job: Job) -> float:
        return max(self._due.get(peer.name, 0), self._due.get(_pair(peer, job), 0))

    def _send_to(self, peer: Peer, job: Job, files: list[Path]) -> bool:
        """Whether a destination now has all files."""
        if time.monotonic() < self._due_time(peer, job):
            return False

        def taken(uids: list[str]) -> None:
            job.note_sent(peer.name, uids)
            self._counters.add("sent", len(uids))

        try:
            deliver(peer, files, self._config.ae_title, taken)
        except UnreachableError as error:
            self._postpone(peer.name, peer, job, error)
            return False
        except NotTakenError as error:  # other jobs may well go through
            self._postpone(_pair(peer, job), peer, job, error)
            return False
        for key in (peer.name, _pair(peer, job)):
            self._due.pop(key, None)
            self._failures.pop(key, None)
        self.unreachable.pop(peer.name, None)
        return True

    def _postpone(self, key: str, peer: Peer, job: Job, error: Exception) -> None:
        pause = min(self._config.retry_seconds * 2 ** self._failures[key], MAX_RETRY_SECONDS)
        self._failures[key] += 1
        self._due[key] = time.monotonic() + pause
        self.unreachable[peer.name] = str(error)
        self._counters.add("send_failures")
        logger.warning("%s: %s; next attempt in %.0f s", job.name, error, pause)


def _pair(peer: Peer, job: Job) -> str:
    return f"{peer.name} {job.name}"
