"""The node: what comes in is received, restored and sent, each at its own pace, and the spool lies between."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import Any

from monai_sasm.batch.row import Row, new_row
from monai_sasm.errors import reason_of
from monai_sasm.node.arrivals import Arrivals
from monai_sasm.node.audit import Audit
from monai_sasm.node.backoff import Backoff
from monai_sasm.node.commitment import Commitments
from monai_sasm.node.config import DicomPeer, NodeConfig
from monai_sasm.node.counters import Counters
from monai_sasm.node.health import HealthServer
from monai_sasm.node.outcome import Outcome, Restores, is_disk_fault, is_disk_full, is_memory_fault
from monai_sasm.node.progress import Progress
from monai_sasm.node.receive import Receiver
from monai_sasm.node.sender import DestinationQueue, Sender
from monai_sasm.node.spool import BUILDING, Job, Spool
from monai_sasm.node.tls import client_context

MAX_FAILURES = 5
"""So often may an error nobody foresaw meet one series, before that series is set aside."""
MAX_SHORTAGE = 3600.0
"""Seconds for which a series is tried again when memory does not suffice for it."""
_FORGET_SECONDS = 3600.0  # between two looks at what is too old
_POLL = 0.1  # seconds between two looks at the spool
_TAKING_OVER, _RESTORING = "taking series over", "restoring"

logger = logging.getLogger(__name__)


class Node:
    """One DICOM node; listens from construction on, works while :meth:`run` runs.

    Args:
        config: see :class:`NodeConfig`.
        restorer: what turns a received series into a derived one.
        report: called with one row per series that is sent, passed over or set aside; without patient data.

    Raises:
        LockedError: another process uses the spool.
        ValueError: credentials of a destination are not set.
        RefusedError: the spool is another user's, or others can read it.
        OSError: a port is taken, or the audit trail cannot be written.
    """

    def __init__(self, config: NodeConfig, restorer: Restores, report: Callable[[Row], None] | None = None) -> None:
        config.check_secrets()
        for peer in config.destinations:
            if isinstance(peer, DicomPeer):
                client_context(peer)  # its files are looked at now, not when the first series is ready
        self.config, self._restorer = config, restorer
        self._report = report or (lambda row: None)
        self.run_name = secrets.token_hex(6)
        self.counters = Counters()
        self.spool = Spool(config.spool, restorer.digest)
        self._arrivals = Arrivals(config.quiet_seconds, config.interrupted_seconds)
        for key in self.spool.incoming():
            self._arrivals.resume(key)
        self._forgotten = 0.0
        self._stop = Event()
        self._progress = Progress()
        for activity in (_TAKING_OVER, _RESTORING):
            self._progress.idle(activity)
        self._later = Backoff(config.retry_seconds)
        commitments = Commitments()
        self._sender = Sender(
            config, self.spool, self.counters, self._delivered, self._quarantine, self._progress, commitments
        )
        self._sending = [
            Thread(target=self._send_until_stopped, args=[queue], name=f"sasm-to-{queue.peer.name}", daemon=True)
            for queue in self._sender.queues
        ]
        self._health: HealthServer | None = None
        try:
            self._audit = Audit(config.audit, identify=config.audit_identify)
            self._receiver = Receiver(config, self.spool, self._arrivals, self.counters, self._audit, commitments)
        except BaseException:
            self.spool.close()
            raise
        if config.http_port is not None:
            try:
                self._health = HealthServer((config.http_host, config.http_port), self.state)
            except BaseException:
                self._receiver.close()
                self.spool.close()
                raise

    @property
    def port(self) -> int:
        """DICOM port it listens on."""
        return self._receiver.port

    @property
    def http_port(self) -> int | None:
        """Port of ``/healthz`` and ``/metrics``."""
        return self._health.port if self._health else None

    def run(self) -> None:
        """Restore and send until :meth:`stop` is called; then the ports are closed."""
        for thread in self._sending:
            thread.start()
        try:
            while not self._stop.is_set():
                if not self._survived(self.restore_next):
                    self._stop.wait(_POLL)
        finally:
            self.close()

    def stop(self) -> None:
        """Ask :meth:`run` to return after what it is doing."""
        self._stop.set()

    def close(self) -> None:
        """Close the ports; what is in flight stays in the spool for the next start."""
        self._stop.set()
        self._receiver.close()
        end = time.monotonic() + 30
        for thread in self._sending:
            if thread.is_alive():
                thread.join(timeout=max(0.0, end - time.monotonic()))
        if self._health:
            self._health.close()
        self._audit.close()
        self.spool.close()

    def state(self) -> dict[str, Any]:
        """What ``/healthz`` and ``/metrics`` tell."""
        problems = self._progress.stalled(60 * self.config.stalled_minutes)
        if self.spool.free_mb() < self.config.min_free_mb:
            problems.append("less disk is free than min_free_mb; nothing is accepted")
        if any(thread.ident is not None and not thread.is_alive() for thread in self._sending):
            problems.append("a sending thread has ended")
        counts = {name: len(self.spool.jobs(name)) for name in ("ready", "outgoing", "quarantine")}
        return {
            "problems": problems,
            "unreachable": dict(self._sender.unreachable),
            "counters": self.counters.snapshot(),
            "waiting": {"incoming": len(self.spool.incoming()), **counts},
            "free_mb": self.spool.free_mb(),
        }

    def restore_next(self) -> bool:
        """Take the complete series over and restore the oldest one that is due; whether there was one."""
        self._receiver.reap()
        if self.config.keep_days is not None and time.monotonic() - self._forgotten > _FORGET_SECONDS:
            self._forgotten = time.monotonic()
            for name in self.spool.forget(self.config.keep_days):
                self._audit.note("deleted", job=name, reason=f"older than {self.config.keep_days:g} days")
        complete = self._arrivals.complete()
        if not complete:
            self._progress.idle(_TAKING_OVER)
        for key in complete:
            if self._later.due(key):
                self._one_at_a_time(key, partial(self._take_over, key))
        waiting = self.spool.jobs("ready")
        if not waiting:
            self._progress.idle(_RESTORING)
        for job in waiting:
            if self._later.due(job.name):
                error = self._one_at_a_time(job.name, partial(self._restore, job))
                if error is None:
                    self._progress.made(_RESTORING)
                elif self._is_given_up(job.name, error):
                    self._one_at_a_time(job.name, partial(self._quarantine, job, reason_of(error)))
                return True
        return False

    def _one_at_a_time(self, name: str, step: Callable[[], None]) -> Exception | None:
        """An error of one series delays that series: the spool is as it was, and it is tried again later."""
        try:
            step()
        except Exception as error:
            pause = self._later.failed(name)
            self.counters.add("errors")
            logger.error("%s: %s; tried again in %.0f s", name, reason_of(error), pause)
            logger.debug("traceback", exc_info=True)
            return error
        self._later.forget(name)
        return None

    def _is_given_up(self, name: str, error: Exception) -> bool:
        """Whether a series that fails again and again is to be set aside."""
        if is_disk_full(error) or (is_memory_fault(error) and self._later.lasted(name) < MAX_SHORTAGE):
            return False
        return self._later.failures(name) >= MAX_FAILURES

    def _take_over(self, key: str) -> None:
        with self._arrivals.taking(key):
            job = self.spool.promote(key)
        self._progress.made(_TAKING_OVER)
        if job is not None:
            self.counters.add("series")
            logger.info("%s: complete with %d objects", job.name, len(job.received()))

    def _restore(self, job: Job) -> None:
        if job.derived.is_dir():  # restored before, and moved here by hand
            self.spool.send_again(job)
            return
        repeated = self.spool.drop_known(job)
        self.counters.add("repeated", repeated)
        if not job.received():
            if job.strays():
                self._quarantine(job, "its objects do not lie in source/; move them there")
                return
            logger.info("%s: restored and sent before", job.name)
            self.spool.discard(job)
            return
        building = job.folder / BUILDING
        shutil.rmtree(building, ignore_errors=True)
        started = time.monotonic()
        try:
            self.spool.start(job)
            building.mkdir()
            outcome = self._restorer(job.source, building, lambda part: self._progress.made(_RESTORING))
        except Exception as error:
            if is_disk_fault(error) or is_memory_fault(error):
                self.spool.stop(job)
                raise
            logger.debug("traceback", exc_info=True)
            self._quarantine(job, reason_of(error))
            return
        except BaseException:  # asked to end: this start does not count
            self.spool.stop(job)
            raise
        self.spool.stop(job)
        if outcome.passed and not (outcome.written or outcome.refused):
            self._pass_over(job, outcome)
            return
        if not outcome.written:
            reasons = dict.fromkeys(reason for _, reason in outcome.refused)
            self._quarantine(job, "; ".join(reasons) or "nothing in it is an image")
            return
        self._count_passed(job, outcome)
        for files, reason in outcome.refused:
            logger.warning("%s: %d objects set aside: %s", job.name, len(files), reason)
            self.spool.set_aside(job, files, reason)
            self.counters.add("quarantined")
        self.spool.restored(job, building)
        self.counters.add("restored", outcome.written)
        self._audit.note("restored", series=job.key, job=job.name, objects=outcome.written)
        seconds = time.monotonic() - started
        logger.info("%s: %d objects restored in %.1f s", job.name, outcome.written, seconds)

    def _pass_over(self, job: Job, outcome: Outcome) -> None:
        """Drop a job without anything to restore, which is no fault: its sender has been told that it arrived."""
        reason = "; ".join(dict.fromkeys(reason for _, reason in outcome.passed))
        self._count_passed(job, outcome)
        self.spool.discard(job)
        self._audit.note("passed over", series=job.key, job=job.name, reason=reason)
        self._tell(self._row(job) | {"status": "skipped", "reason": reason})

    def _count_passed(self, job: Job, outcome: Outcome) -> None:
        for files, reason in outcome.passed:
            logger.info("%s: %d objects passed over: %s", job.name, len(files), reason)
            self.counters.add("passed_over", len(files))

    def _quarantine(self, job: Job, reason: str) -> None:
        shutil.rmtree(job.folder / BUILDING, ignore_errors=True)
        self.spool.quarantine(job, reason)
        self.counters.add("quarantined")
        logger.error("%s: set aside: %s", job.name, reason)
        self._audit.note("set aside", job=job.name, reason=reason)
        self._tell(self._row(job) | {"status": "failed", "reason": reason})

    def _delivered(self, job: Job, files: int) -> None:
        names = [peer.name for peer in self.config.destinations]
        logger.info("%s: %d objects sent to %s", job.name, files, ", ".join(names))
        self._audit.note("sent", series=job.key, job=job.name, objects=files, destinations=names)
        self._tell(self._row(job) | {"status": "ok", "output": {"files": files, "destinations": names}})

    def _row(self, job: Job) -> Row:
        return new_row("node", self.run_name, id=job.name, format="dicom")

    def _tell(self, row: Row) -> None:
        try:
            self._report(row)
        except Exception as error:  # nobody reads any more; the work goes on
            logger.error("a row could not be reported: %s", reason_of(error))

    def _send_until_stopped(self, queue: DestinationQueue) -> None:
        while not self._stop.is_set():
            if not self._survived(queue.send_due):
                self._stop.wait(_POLL)

    def _survived(self, step: Callable[[], bool]) -> bool:
        """A fault of the node (a full disk, mostly) must not end it: the spool is as it was, and is tried again."""
        try:
            return step()
        except Exception as error:
            self.counters.add("errors")
            logger.error("the node could not go on: %s; it will try again", reason_of(error))
            logger.debug("traceback", exc_info=True)
            self._stop.wait(self.config.retry_seconds)
            return False
