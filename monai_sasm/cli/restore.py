"""``sasm restore``, and what it shares with ``sasm thin`` and ``sasm batch``: what is printed of a plan and of rows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from monai_sasm.cli.arguments import DryRun, Input, Output, Overwrite, Restoring, Running, grouped
from monai_sasm.cli.output import (
    exit_code,
    logger,
    one_line_errors,
    print_row,
    print_table,
    progress_bar,
    set_up_logging,
)

if TYPE_CHECKING:
    from monai_sasm.batch.job import BatchJob, Task
    from monai_sasm.batch.row import Row


@grouped
def restore(
    source: Input,
    output: Output,
    restoring: Restoring,
    running: Running,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
) -> None:
    """Restore images. A result is the same kind of file as its source; a DICOM result is a new, derived series.

    Exit codes: 0 done, 2 wrong use, 3 nothing to do, 4 all failed, 8 some failed, 130 interrupted.
    """
    set_up_logging(running.verbosity)
    with one_line_errors():
        options = restoring.options()
        run_job(running, dry_run, command="restore", source=source, output=output, options=options, overwrite=overwrite)


def run_job(running: Running, dry_run: bool, **fields: Any) -> NoReturn:
    """Restore or thin every image of a path, print a line for each; ends the command with its exit code.

    Args:
        running: how to run, and what to tell.
        dry_run: only say what would be done.
        fields: of :class:`monai_sasm.batch.job.BatchJob`.
    """
    from monai_sasm.batch.job import BatchJob
    from monai_sasm.batch.plan import plan

    job = BatchJob(ledger=False, identify=True, **fields, **running.settings())
    tasks = plan(job)
    if dry_run:
        raise typer.Exit(print_plan(tasks, job, running.as_json))
    from monai_sasm.batch.local import run_here  # loads torch
    from monai_sasm.batch.row import row_of

    waiting = sum(task.refusal is None for task in tasks)
    with progress_bar(waiting, running.quiet) as advance:
        # no network is loaded to say why there is nothing to do
        rows = run_here(tasks, job, advance) if waiting else (row_of(task, job) for task in tasks)
        statuses = [tell(row, row["input"]["name"], row["output"], as_json=running.as_json) for row in rows]
    raise typer.Exit(exit_code(statuses))


def tell(row: Row, name: str, output: Any, as_json: bool) -> str:
    """Log what became of an image, and print its row or the path of its result; its status."""
    status = str(row["status"])
    if status == "ok":
        logger.info("%s: done in %.1f s", name, row["seconds"])
        for note in row["notes"]:
            logger.warning("%s: %s", name, note)
    else:
        logger.log(40 if status == "failed" else 30, "%s: %s: %s", name, status, row["reason"])
    if as_json:
        print_row(row)
    elif status == "ok":
        print(output["path"], flush=True)
    return status


def print_plan(tasks: Iterable[Task], job: BatchJob, as_json: bool) -> int:
    """What would be done, as a table on stdout or one JSON object per image; the exit code."""
    from monai_sasm.batch.row import place_of, row_of

    tasks = [_looked_into(task, job) for task in tasks]
    named = replace(job, identify=True)  # for whoever looks for the image of an id; nothing is kept
    rows = [row_of(task, named) for task in tasks]
    if as_json:
        for row in rows:
            print_row(row)
        return exit_code(row["status"] for row in rows)
    verb = "thin" if job.command == "thin" else "restore"
    cells: list[tuple[str, ...]] = []
    for task, row in zip(tasks, rows, strict=True):
        place = os.path.relpath(place_of(task.entry), job.source)  # names of series are hashes; the place tells which
        what = f"{place} -> {row['output']['path']}" if task.refusal is None else f"{place}: {row['reason']}"
        found = row["input"]
        kind, files = found["modality"] or "?", str(found["files"])
        cells.append((verb if task.refusal is None else "skip", kind, found["geometry"], files, task.id, what))
    print_table(("plan", "what", "geometry", "files", "id", "place below the input, and result or reason"), cells)
    return exit_code(row["status"] for row in rows)


def _looked_into(task: Task, job: BatchJob) -> Task:
    """The task, refused where its values say that it is no image; DICOM has headers for that, photos are pictures."""
    if task.refusal is not None or task.entry.format in ("dicom", "raster"):
        return task
    from monai_sasm.batch.row import ended_by

    try:
        task.entry.load()
    except (ValueError, OSError, MemoryError) as error:
        return replace(task, refusal=ended_by(error, task, replace(job, identify=True))["reason"])
    return task
