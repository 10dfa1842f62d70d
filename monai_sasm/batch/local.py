"""The engine for one machine: this process, the models loaded once, one series after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from monai_sasm.batch.job import Job, Task
from monai_sasm.batch.manifest import Row
from monai_sasm.batch.task import PUT_OFF, restorer_of, run_task


def in_process(tasks: Iterable[Task], job: Job, progress: Callable[[float], None] | None = None) -> Iterator[Row]:
    """Load the models, then run the tasks; yields their rows in order, those of tasks that were put off last.

    No pool of processes: each would hold its own models, and one that runs out of memory would take the pool along.

    Args:
        tasks: what to run.
        job: see :class:`monai_sasm.batch.job.Job`.
        progress: see :func:`monai_sasm.batch.task.run_task`.

    Raises:
        BundleError: a bundle is missing or incomplete.
    """
    restorer_of(job)
    return _rows(tasks, job, progress)


def _rows(tasks: Iterable[Task], job: Job, progress: Callable[[float], None] | None) -> Iterator[Row]:
    put_off = []
    for task in tasks:
        row = _run(task, job, progress, last=False)
        if row["status"] == PUT_OFF:
            put_off.append(task)
        else:
            yield row
    for task in put_off:
        yield _run(task, job, progress, last=True)


def _run(task: Task, job: Job, progress: Callable[[float], None] | None, *, last: bool) -> Row:
    if progress is None:
        return run_task(task, job, last=last)
    done = 0.0

    def advance(part: float) -> None:
        nonlocal done
        done += part
        progress(part)

    row = run_task(task, job, advance, last=last)
    if row["status"] != PUT_OFF:
        progress(max(0.0, 1 - done))  # of a series that was passed over, or needed fewer passes than it might have
    return row
