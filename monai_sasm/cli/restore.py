"""``sasm restore``, and what it shares with ``sasm thin`` and ``sasm batch``: what is printed of a plan and of rows."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from monai_sasm.cli.arguments import DryRun, Identify, Inputs, Output, Overwrite, Restoring, Running, grouped
from monai_sasm.cli.output import (
    NOTICE,
    exit_code,
    logger,
    one_line_errors,
    print_row,
    print_table,
    progress_bar,
    say,
    set_up_logging,
)

if TYPE_CHECKING:
    from monai_sasm.batch.job import BatchJob, Task
    from monai_sasm.batch.row import Row

_SHOWN = 0.005  # weight of an expert from which it is named
_UNITS = {"CT": "HU", "PHOTO": "of 1"}


@grouped
def restore(
    sources: Inputs,
    output: Output,
    restoring: Restoring,
    running: Running,
    dry_run: DryRun = False,
    overwrite: Overwrite = False,
    identify: Identify = False,
) -> None:
    """Restore images. A result is the same kind of file as its source, or that of the name it is given; a DICOM result
    is a new, derived series.

    Exit codes: 0 done, 2 wrong use, 3 nothing to do, 4 all failed, 8 some failed, 130 interrupted. The rows of --json
    are explained in docs/rows.md.
    """
    set_up_logging(running.verbosity)
    with one_line_errors():
        job = {"command": "restore", "output": output, "options": restoring.options(), "overwrite": overwrite}
        run_job(running, dry_run, sources=sources, describe=identify, **job)


def run_job(running: Running, dry_run: bool, sources: Sequence[Path], **fields: Any) -> NoReturn:
    """Restore or thin every image of a path, print a line for each; ends the command with its exit code.

    Args:
        running: how to run, and what to tell.
        dry_run: only say what would be done.
        sources: files and folders.
        fields: of :class:`monai_sasm.batch.job.BatchJob`.
    """
    from monai_sasm.batch.job import BatchJob
    from monai_sasm.batch.plan import plan

    source, *further = sources
    job = BatchJob(source, further=tuple(further), ledger=False, identify=True, **fields, **running.settings())
    tasks = plan(job)
    if not tasks:
        logger.warning("%s holds no files to restore", source if not further else "the input")
    if dry_run:
        raise typer.Exit(print_plan(tasks, job, running.as_json))
    waiting = sum(task.refusal is None for task in tasks)
    from monai_sasm.batch.row import row_of

    if not waiting:  # nothing is loaded to say why there is nothing to do
        raise typer.Exit(exit_code([_told(row_of(task, job), running) for task in tasks]))
    logger.log(NOTICE, "loading models")
    from monai_sasm.batch.local import run_here  # loads torch

    with progress_bar(waiting, running.quiet) as bar:
        rows = run_here(tasks, job, *((None, None) if bar is None else (bar.update, bar.begin)))
        statuses = [_told(row, running) for row in rows]
    raise typer.Exit(exit_code(statuses))


def _told(row: Row, running: Running) -> str:
    return tell(row, row["input"]["name"], row["output"], running.as_json, NOTICE)


def tell(row: Row, name: str, output: Any, as_json: bool, level: int = logging.INFO) -> str:
    """Log what became of an image, and print its row or the path of its result; its status."""
    status = str(row["status"])
    name += f" ({described})" if (described := row["input"].get("description")) else ""
    if status == "ok":
        logger.log(level, "%s: %s in %.1f s", name, _done(row), row["seconds"])
        for note in row["notes"]:
            logger.warning("%s: %s", name, note)
    else:
        logger.log(40 if status == "failed" else 30, "%s: %s: %s", name, status, row["reason"])
    if as_json:
        print_row(row)
    elif status == "ok":
        say(output["path"])
    return status


def _done(row: Row) -> str:
    """What was done to an image, in a few words: noise before and after, and who took part."""
    summary = row["summary"]
    if "weights" not in summary:
        return "done"
    experts = {name: weight for name, weight in summary["weights"].items() if name != "identity" and weight >= _SHOWN}
    shares = ", ".join(f"{name} {weight:.0%}" for name, weight in sorted(experts.items(), key=lambda one: -one[1]))
    before, after, what = summary["noise"], summary["noise_after"], "noise estimate"
    if (
        tissue := summary.get("tissue_noise")
    ) is not None:  # what a circle shows; the estimate reads less of coarse noise
        before, after, what = tissue["input"], tissue["result"], "noise in uniform tissue"
    noise = f"{what} {before:.3g} -> {after:.3g} {_UNITS.get(row['input']['modality'], '')}"
    return f"{noise.rstrip()}, {shares or 'no expert took part'}"


def print_plan(tasks: Iterable[Task], job: BatchJob, as_json: bool) -> int:
    """What would be done, as a table on stdout or one JSON object per image; the exit code."""
    from monai_sasm.batch.row import DONE_BEFORE, place_of, row_of

    _tell_missing_weights(job)
    tasks = [_looked_into(task, job) for task in tasks]
    named = replace(job, identify=True)  # for whoever looks for the image of an id; nothing is kept
    rows = [row_of(task, named) for task in tasks]
    if as_json:
        for row in rows:
            print_row(row)
        return exit_code(row["status"] for row in rows)
    verbs = {"planned": "thin" if job.command == "thin" else "restore", "failed": "fail"}
    cells: list[tuple[str, ...]] = []
    for task, row in zip(tasks, rows, strict=True):
        verb = "check" if row["notes"][-1:] == [DONE_BEFORE] else verbs.get(row["status"], "skip")
        # names of series are hashes; the place tells which
        place = os.path.relpath(place_of(task.entry), job.root_of(task.entry) if len(job.sources) == 1 else ".")
        place += f" ({described})" if (described := row["input"].get("description")) else ""
        what = f"{place} -> {row['output']['path']}" if task.refusal is None else f"{place}: {row['reason']}"
        found = row["input"]
        kind, files = found["modality"] or "?", str(found["files"])
        cells.append((verb, kind, found["geometry"], files, task.id, what))
    print_table(("plan", "what", "geometry", "files", "id", "place below the input, and result or reason"), cells)
    return exit_code(row["status"] for row in rows)


def _tell_missing_weights(job: BatchJob) -> None:
    """Warn where the named refiner's weights are still on a model hub: without them no photo would be restored."""
    from monai_sasm.bundles import available, read_metadata
    from monai_sasm.bundles.finding import is_downloaded

    name = getattr(job.options, "refiner", None)
    root = None if name is None else available(job.trust).get(name)
    section = {} if root is None else read_metadata(root)["sasm"]
    if "hub" in section and not is_downloaded(section["hub"], section.get("revision")):
        logger.warning("the weights of %s are not on this machine: `sasm bundles download %s` gets them", name, name)


def _looked_into(task: Task, job: BatchJob) -> Task:
    """The task, refused where a run would find that its place is taken, or by its values that it is no image; DICOM has
    headers for that, photos are pictures.
    """
    if task.refusal is not None:
        return task
    from monai_sasm.batch.plan import check_free
    from monai_sasm.batch.row import DONE_BEFORE, refused_by

    try:
        if job.ledger and check_free(task, job) is not None and job.resume:
            return replace(task, entry=replace(task.entry, notes=(*task.entry.notes, DONE_BEFORE)))
        if task.entry.format not in ("dicom", "raster"):
            task.entry.load()
    except (ValueError, OSError, MemoryError) as error:
        return refused_by(error, task, replace(job, identify=True))
    return task
