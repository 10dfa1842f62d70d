"""From the spool to every destination: what has been taken is noted, what failed is tried again, later and later.

Each destination has its own queue, so that none waits for another. A job leaves the spool when every destination has
all of it, and has committed to keep it where that is asked; where one refuses it for good, or for a day by what may be
its own trouble, it is set aside after the others have it. A job at which a destination breaks down each time (an object
that crashes its receiver, or is answered by HTTP 500) waits behind the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock

from monai_sasm.errors import reason_of
from monai_sasm.node.backoff import Backoff
from monai_sasm.node.commitment import Commitments, Transaction, ask, check
from monai_sasm.node.config import DicomPeer, NodeConfig, Peer
from monai_sasm.node.counters import Counters
from monai_sasm.node.deliver import NotTakenError, TroubleError, UnreachableError, deliver, sop_instance
from monai_sasm.node.outcome import is_disk_full
from monai_sasm.node.progress import Progress
from monai_sasm.node.spool import Job, Spool

MAX_REFUSALS = 3
"""So often may a destination refuse objects of a job for good, or an unforeseen error come, before it is given up."""
MAX_TROUBLE = 86400.0
"""Seconds for which it may refuse objects of a job by what may be its own trouble, before it is given up: a night."""
MAX_SILENCE = 60.0
"""Seconds after which a destination that does not answer is asked again, at the latest: asking costs little, and one
that comes and goes would be missed again and again."""

NOTHING = "nothing in it is ready to be sent: move its job to ready/ without derived/"

logger = logging.getLogger(__name__)


class UnsentError(RuntimeError):
    """A destination that was believed to have all of a job has not."""


class Sender:
    """Sends the jobs in ``outgoing`` to all destinations.

    Args:
        config: destinations, own AE title, first pause between attempts.
        spool: where the jobs lie.
        counters: is told what was sent and what failed.
        delivered: called with a job that every destination has, and the number of its files.
        set_aside: called with a job that a destination refuses for good, and the reason; must quarantine it.
        progress: is told what goes on.
        commitments: is told, by the receiver, what destinations commit to.
    """

    def __init__(
        self,
        config: NodeConfig,
        spool: Spool,
        counters: Counters,
        delivered: Callable[[Job, int], None],
        set_aside: Callable[[Job, str], None],
        progress: Progress | None = None,
        commitments: Commitments | None = None,
    ) -> None:
        self.commitments = commitments or Commitments()
        self._spool, self._delivered, self._set_aside = spool, delivered, set_aside
        self._ending = Lock()
        self._uids: dict[str, dict[Path, str]] = {}  # job -> its files; a long queue is not read over and over
        self.queues = tuple(
            DestinationQueue(peer, config, spool, counters, self, progress or Progress())
            for peer in config.destinations
        )

    @property
    def unreachable(self) -> dict[str, str]:
        """Destination -> why it took nothing at the last attempt."""
        return {queue.peer.name: queue.unreachable for queue in self.queues if queue.unreachable}

    def send_due(self) -> bool:
        """Send to one destination after the other what is due; whether any job got further."""
        return sum(queue.send_due() for queue in self.queues) > 0

    def uids(self, job: Job) -> dict[Path, str]:
        """File -> SOP Instance UID of what is to be sent.

        Raises:
            ValueError: a file is damaged.
        """
        known = self._uids.get(job.name)
        if known is None:
            known = {file: sop_instance(file) for file in job.files()}
            if known:  # nothing is found in a job that has just been moved by hand, or by another thread
                self._uids[job.name] = known
        return known

    def end(self, job: Job) -> bool:
        """Let a job leave ``outgoing`` when every destination has it or has refused it; whether it has left.

        What the queues remember may be of an earlier stay of the job: it counts as sent only when what lies there now
        is noted as taken, on disk, by every destination.

        Raises:
            UnsentError: a destination lacks some of it; its queue will send it.
            ValueError: a file is damaged.
        """
        with self._ending:
            if not job.folder.is_dir() or not all(queue.has_ended(job) for queue in self.queues):
                return False
            reasons = [queue.refused[job.name] for queue in self.queues if job.name in queue.refused]
            if reasons:
                self._set_aside(job, "; ".join(reasons))
            else:
                self.forget_files(job.name)
                uids, taken = self.uids(job), job.sent()
                behind = [
                    queue for queue in self.queues if any((queue.peer.name, uid) not in taken for uid in uids.values())
                ]
                for queue in behind:
                    queue.resume(job)
                if behind:
                    names = ", ".join(queue.peer.name for queue in behind)
                    raise UnsentError(f"not all of it is noted as taken by {names}; it is sent again")
                if uids:
                    self._spool.delivered(job)
                    self._delivered(job, len(uids))
                else:
                    self._set_aside(job, NOTHING)
            self._forget(job)
            return True

    def give_up(self, job: Job, reason: str) -> None:
        """Set a job aside that cannot be sent anywhere."""
        with self._ending:
            if job.folder.is_dir():
                self._set_aside(job, reason)
            self._forget(job)

    @property
    def known(self) -> set[str]:
        """Names of the jobs whose files have been looked at."""
        return set(self._uids)

    def forget_files(self, name: str) -> None:
        """Look at the files of a job anew when they are asked for."""
        self._uids.pop(name, None)

    def _forget(self, job: Job) -> None:
        self.forget_files(job.name)
        for queue in self.queues:
            queue.forget(job)


class DestinationQueue:
    """Sends the jobs in ``outgoing`` to one destination; arguments as for :class:`Sender`."""

    def __init__(
        self, peer: Peer, config: NodeConfig, spool: Spool, counters: Counters, sender: Sender, progress: Progress
    ) -> None:
        self.peer, self._config, self._spool, self._counters = peer, config, spool, counters
        self._sender, self._progress = sender, progress
        self._later = Backoff(config.retry_seconds)
        self._reachable = Backoff(config.retry_seconds, MAX_SILENCE)
        self._vain: Counter[str] = Counter()  # job -> attempts in a row at which it took nothing, for want of an answer
        self._has: set[str] = set()  # jobs it has
        self._asked: dict[str, Transaction] = {}  # job -> what was asked about the storage of its objects
        self.refused: dict[str, str] = {}
        """Job -> why it is not sent there any more."""
        self._progress.idle(self._activity)
        self.unreachable: str | None = None
        """Why it took nothing at the last attempt."""

    def send_due(self) -> bool:
        """Send every job that is due; whether any got further."""
        jobs = self._spool.jobs("outgoing")
        known = self._has | set(self.refused) | set(self._asked) | set(self._vain) | self._sender.known
        for name in known - {job.name for job in jobs}:  # moved by hand
            self._drop(name)
        further = False
        for job in sorted(jobs, key=lambda one: self._vain[one.name]):  # the oldest first among their like
            if self._later.due(job.name) and (self.has_ended(job) or self._reachable.due(self.peer.name)):
                further |= self._guarded(job)
        if all(self.has_ended(job) or job.name in self._asked for job in jobs):  # waiting for a report ends by itself
            self._progress.idle(self._activity)
        return further

    def has_ended(self, job: Job) -> bool:
        """Whether nothing more of a job will be sent there."""
        return job.name in self._has or job.name in self.refused

    def forget(self, job: Job) -> None:
        """A job has left ``outgoing``."""
        self._later.forget(job.name)
        self._drop(job.name)

    def resume(self, job: Job) -> None:
        """A job that it was believed to have is to be sent there."""
        self._has.discard(job.name)

    def _drop(self, name: str) -> None:
        self._has.discard(name)
        self._vain.pop(name, None)
        self.refused.pop(name, None)
        self._sender.forget_files(name)
        self._end_transaction(name)

    def _end_transaction(self, name: str) -> None:
        if transaction := self._asked.pop(name, None):
            self._sender.commitments.forget(transaction)

    @property
    def _activity(self) -> str:
        return f"sending to {self.peer.name}"

    def _guarded(self, job: Job) -> bool:
        """Send a job; an error nobody foresaw delays this job at this destination, and nothing else."""
        try:
            return self._sender.end(job) if self.has_ended(job) else self._send(job)
        except Exception as error:
            if not job.folder.is_dir():
                return True  # it has just been set aside
            logger.debug("traceback", exc_info=True)
            self._counters.add("errors")
            self._postpone(job, reason_of(error), self._later.failed(job.name))
            if self._later.failures(job.name) >= MAX_REFUSALS and not is_disk_full(error):
                self.refused.setdefault(job.name, f"{self.peer.name}: {reason_of(error)}")
            return False

    def _send(self, job: Job) -> bool:
        if job.name in self._asked and not self._asked[job.name].ended:
            return False
        if not job.folder.is_dir():  # another destination's thread has just set it aside
            return False
        try:
            uids = self._sender.uids(job)
        except ValueError as error:
            self._sender.give_up(job, f"{error}; move its job to ready/ without derived/")
            return True
        if not uids:
            self._sender.give_up(job, NOTHING)
            return True
        before = job.sent()
        missing = [file for file, uid in uids.items() if (self.peer.name, uid) not in before]
        further = False

        def note_sent(new: list[str]) -> None:
            nonlocal further
            further = True
            job.note_sent(self.peer.name, new)
            self._counters.add("sent", len(new))
            self._progress.made(self._activity)

        try:
            deliver(self.peer, missing, self._config.ae_title, note_sent)
            if not self._kept(job, uids):
                return further
        except UnreachableError as error:
            self.unreachable = str(error)
            self._vain[job.name] = 0 if further else self._vain[job.name] + 1
            self._postpone(job, str(error), self._reachable.failed(self.peer.name))
            return further
        except NotTakenError as error:  # other jobs may well go through
            self._postpone(job, str(error), self._later.failed(job.name))
            times, trouble = self._later.failures(job.name), isinstance(error, TroubleError)
            if times >= MAX_REFUSALS and not (trouble and self._later.lasted(job.name) < MAX_TROUBLE):
                self.refused[job.name] = f"{self.peer.name} refused objects {times} times: {error}"
                self._sender.end(job)
            return further
        self.unreachable = None
        self._reachable.forget(self.peer.name)
        self._has.add(job.name)
        self._sender.end(job)
        return True

    def _kept(self, job: Job, uids: Mapping[Path, str]) -> bool:
        """Whether the destination has said that it keeps all of a job, where it is asked at all.

        Raises:
            UnreachableError, NotTakenError: it cannot be asked, does not keep all, or has not said so in time.
        """
        peer = self.peer
        if not isinstance(peer, DicomPeer) or peer.commit_seconds is None:
            return True
        if job.name not in self._asked:
            commitments = self._sender.commitments
            self._asked[job.name] = ask(peer, uids, self._config.ae_title, commitments=commitments)
            self._progress.made(self._activity)
        transaction = self._asked[job.name]
        if not transaction.ended:
            return False
        self._end_transaction(job.name)
        if transaction.reported.is_set():
            job.note_lost(peer.name, set(uids.values()) - transaction.committed)
        check(transaction, peer, uids)
        self._counters.add("committed", len(uids))
        return True

    def _postpone(self, job: Job, reason: str, pause: float) -> None:
        self._counters.add("send_failures")
        logger.warning("%s: %s; next attempt in %.0f s", job.name, reason, pause)
