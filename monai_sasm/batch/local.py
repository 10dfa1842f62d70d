"""The engines for one machine: this process, the models loaded once, one image after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.row import Row
from monai_sasm.batch.work import PUT_OFF, Begin, Progress, restorer_of, run_at_once, run_task
from monai_sasm.io.apart import decoding_apart
from monai_sasm.restoration.files import open_restorer


def run_here(
    tasks: Iterable[Task], job: BatchJob, progress: Progress | None = None, begin: Begin | None = None
) -> Iterator[Row]:
    """Load the models, then run tasks without a ledger; yields a row for each, in order.

    Args:
        tasks: what to run.
        job: without a ledger.
        progress: see :data:`monai_sasm.batch.work.Progress`.
        begin: see :data:`monai_sasm.batch.work.Begin`.

    Raises:
        BundleError: a bundle is missing or incomplete.
        ValueError: there is no such device.
    """
    restorer = open_restorer(job.device, job.precision, trust=job.trust, options=job.options)
    waiting = list(tasks)
    with decoding_apart(len(waiting) > 1):  # what is wrong with one image must not end the others
        for task in waiting:
            yield _counted(task, progress, partial(run_at_once, task, job, restorer=restorer, begin=begin))


def in_process(tasks: Iterable[Task], job: BatchJob, progress: Progress | None = None) -> Iterator[Row]:
    """Run tasks with a ledger; yields their rows in order, those of tasks that were put off last.

    No pool of processes: each would hold its own models, and one that runs out of memory would take the pool along.

    Args:
        tasks: what to run.
        job: with a ledger.
        progress: see :data:`monai_sasm.batch.work.Progress`.

    Raises:
        BundleError: a bundle is missing or incomplete.
    """
    restorer_of(job)
    return _with_ledger(tasks, job, progress)


def _with_ledger(tasks: Iterable[Task], job: BatchJob, progress: Progress | None) -> Iterator[Row]:
    put_off: list[Task] = []
    for task in tasks:
        row = _counted(task, progress, partial(run_task, task, job))
        if row["status"] == PUT_OFF:
            put_off.append(task)
        else:
            yield row
    for task in put_off:
        yield _counted(task, progress, partial(run_task, task, job, last=True))


def _counted(task: Task, progress: Progress | None, work: Callable[..., Row]) -> Row:
    """Do the work of a task; its parts add up to 1 also where it was passed over, or needed fewer passes."""
    if progress is None or task.refusal is not None:
        return work()
    done = 0.0

    def advance(part: float) -> None:
        nonlocal done
        done += part
        progress(part)

    row = work(progress=advance)
    if row["status"] != PUT_OFF:
        progress(max(0.0, 1 - done))
    return row
