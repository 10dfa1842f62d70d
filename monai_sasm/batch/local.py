"""The engine for one machine: this process, the models loaded once, one series after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from monai_sasm.batch.job import Job, Task
from monai_sasm.batch.manifest import Row
from monai_sasm.batch.task import house_of, run_task


def in_process(tasks: Iterable[Task], job: Job, progress: Callable[[float], None] | None = None) -> Iterator[Row]:
    """Load the models, then run the tasks; yields their rows in order.

    No pool of processes: each would hold its own models, and one that runs out of memory would take the pool along.

    Args:
        tasks: what to run.
        job: see :class:`monai_sasm.batch.job.Job`.
        progress: see :func:`monai_sasm.batch.task.run_task`.

    Raises:
        BundleError: a bundle is missing or incomplete.
    """
    house_of(job)
    return (_run(task, job, progress) for task in tasks)


def _run(task: Task, job: Job, progress: Callable[[float], None] | None) -> Row:
    if progress is None:
        return run_task(task, job)
    done = 0.0

    def advance(part: float) -> None:
        nonlocal done
        done += part
        progress(part)

    row = run_task(task, job, advance)
    progress(max(0.0, 1 - done))  # of a series that was passed over, or needed fewer passes than it might have
    return row
