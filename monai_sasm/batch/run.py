"""A run: lock, recover, run the tasks on some engine, and write down each outcome as it comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain

from monai_sasm.batch import bids
from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.lock import exclusive
from monai_sasm.batch.manifest import NAME, Manifest
from monai_sasm.batch.row import Row, row_of
from monai_sasm.errors import DISK_FULL

Engine = Callable[[Iterable[Task], BatchJob], Iterator[Row]]

logger = logging.getLogger("monai_sasm")


class StoppedError(RuntimeError):
    """The run ended before its last task; what was finished stays, ``--resume`` goes on."""


@dataclass
class Summary:
    """What a run came to.

    Args:
        planned: number of series found, those included that are passed over.
        ok: restored in this run.
        before: done by an earlier run and taken over.
        skipped: passed over, each with a reason.
        failed: of the tasks, each with a reason.
        seconds: of the run, without loading the models in this process.
        network_seconds: sum over the series restored in this run of what gate and experts took.
        peak_mb: largest memory of any process that worked, MiB.
    """

    planned: int
    ok: int = 0
    before: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    network_seconds: float = 0.0
    peak_mb: int = 0
    reasons: list[Row] = field(default_factory=list)

    def add(self, row: Row, run: str) -> None:
        """Count a row; rows of another run are results that were taken over."""
        if row["status"] == "ok" and row["run"] != run:
            self.before += 1
        elif row["status"] == "ok":
            self.ok += 1
            self.network_seconds += row["network_seconds"]
            self.peak_mb = max(self.peak_mb, row["peak_mb"] or 0)
        elif row["status"] == "skipped":
            self.skipped += 1
        else:
            self.failed += 1
            self.reasons.append(row)

    @property
    def overhead(self) -> str:
        """Time of gate and experts, and of all else: reading, hashing, writing, syncing."""
        if self.network_seconds > self.seconds:
            return f"gate and experts {self.network_seconds:.1f} s, {self.network_seconds / self.seconds:.1f} at a time"
        rest = self.seconds - self.network_seconds
        return f"gate and experts {self.network_seconds:.1f} s, everything else {rest:.1f} s"

    @property
    def left(self) -> int:
        """Series that were not reached."""
        return self.planned - self.ok - self.before - self.skipped - self.failed


def run(job: BatchJob, tasks: Sequence[Task], engine: Engine, summary: Summary) -> Iterator[Row]:
    """Run tasks with a ledger; yields each row once it is in the manifest.

    A row that the manifest has already (a result of an earlier run, a refusal for the same reason) is yielded but not
    written again, so that the manifest of a resumed batch reads like that of one run.

    Raises:
        LockedError: another run writes into the output.
        RefusedError: the output holds a ledger of others, or links where files of the batch must be.
        StoppedError: the disk is full, or the cluster is gone.
    """
    ledger = Ledger(job.output)
    ledger.open(job.sources, adopt=job.adopt)
    with exclusive(job.output, ledger.folder / "lock"):
        ledger.recover()
        with closing(Manifest(job.output / NAME)) as manifest:
            waiting = [task for task in tasks if task.refusal is None]
            if any(task.target.name == bids.derived_name(task.entry.paths[0].name) for task in waiting):
                bids.describe(job.output, job.source)
            outcomes = engine(waiting, job) if waiting else iter(())
            # another input than that of an earlier result
            other = {task.id for task in tasks if task.entry.refusal is not None}
            refused = (row_of(task, job) for task in tasks if task.refusal is not None)
            started = time.perf_counter()
            try:
                for row in chain(refused, outcomes):
                    _write(manifest, row, stale=row["input"]["id"] in other)
                    summary.add(row, job.run)
                    summary.seconds = time.perf_counter() - started
                    yield row
                    if row.get("error") in DISK_FULL:
                        raise StoppedError(f"{row['reason']}: nothing more can be written; make room, then resume=True")
            finally:
                ledger.recover()


def _write(manifest: Manifest, row: Row, *, stale: bool) -> None:
    known = manifest.latest(row["input"]["id"]) or {}
    same = all(known.get(key) == row.get(key) for key in ("status", "reason", "commit"))
    if same and known["input"].keys() >= row["input"].keys():  # else this run names what the earlier one did not
        return
    if known.get("status") == "ok" and row["status"] == "skipped" and not stale:
        return  # its result is still in place
    try:
        manifest.append(row)
    except OSError as error:
        raise StoppedError(
            f"the manifest cannot be written ({error}); what is done is safe, resume=True goes on"
        ) from None
