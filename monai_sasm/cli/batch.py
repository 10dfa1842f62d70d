"""``sasm batch``: the options, what is printed, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_sasm.cli.arguments import Cluster, Restoring, Running, Scheduler, grouped
from monai_sasm.cli.output import (
    ALL_FAILED,
    INTERRUPTED,
    SOME_FAILED,
    exit_code,
    logger,
    one_line_errors,
    progress_bar,
    say,
    set_up_logging,
)
from monai_sasm.cli.restore import print_plan, tell

if TYPE_CHECKING:
    from monai_sasm.batch.job import BatchJob, Task
    from monai_sasm.batch.run import Engine, Summary

MERCURE_OUTPUT = "MERCURE_OUT_DIR"
INPUTS = ["MERCURE_IN_DIR", "MONAI_INPUTPATH", "HOLOSCAN_INPUT_PATH"]
OUTPUTS = [MERCURE_OUTPUT, "MONAI_OUTPUTPATH", "HOLOSCAN_OUTPUT_PATH"]
SHOWN_FAILURES = 20

Input = Annotated[Path, typer.Argument(metavar="IN", envvar=INPUTS, help="Folder of DICOM studies, NIfTI or photos.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", envvar=OUTPUTS, help="Folder for results and manifest.jsonl.")]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Take over what is done with this input, models and parameters; make the rest anew."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace any results; with --resume only those that are out of date.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the series with their id and place; write nothing.")]
Identify = Annotated[
    bool,
    typer.Option("--identify", help="Tell names, paths and UIDs in manifest and messages; they may name patients."),
]
Flat = Annotated[
    bool | None,
    typer.Option(help="DICOM files straight into OUT as SERIES#OBJECT.dcm; by default when mercure is the caller."),
]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Take over a ledger that was copied here with its results; see SECURITY.md.")
]


@grouped
def batch(
    source: Input,
    output: Output,
    restoring: Restoring,
    running: Running,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    identify: Identify = False,
    flat: Flat = None,
    adopt: Adopt = False,
) -> None:
    """Restore a whole tree, series by series, here or on a cluster; every outcome is a line of OUT/manifest.jsonl.

    A crash costs the series under way: run again with --resume. Orchestrators may give IN and OUT in the environment.

    Exit codes: 0 done, 2 wrong use, 3 nothing to do, 4 all failed, 8 some failed or left, 130 interrupted.
    """
    set_up_logging(running.verbosity)
    with one_line_errors():
        if scheduler and cluster:
            raise ValueError("--scheduler is for a running cluster, --cluster starts one; give one of them")
        from monai_sasm.batch.plan import plan

        if cluster:
            from monai_sasm.batch.cluster import read_cluster

            read_cluster(cluster)
        flat = str(output) == os.environ.get(MERCURE_OUTPUT) if flat is None else flat
        more = {"identify": identify, "flat": flat, "adopt": adopt}
        job = job_for(source, output, restoring, running, resume=resume, overwrite=overwrite, **more)
        tasks = plan(job)
        if dry_run:
            raise typer.Exit(print_plan(tasks, job, running.as_json))
        raise typer.Exit(_run(job, tasks, running, engine_for=partial(_engine, scheduler, cluster)))


def job_for(source: Path, output: Path, restoring: Restoring, running: Running, **fields: Any) -> BatchJob:
    """The job of a command with a ledger; workers may run it elsewhere, so its paths are absolute.

    Raises:
        RefusedError: a link in the input leads the output out of it.
    """
    from monai_sasm.batch.job import BatchJob
    from monai_sasm.io.nofollow import refuse_astray

    refuse_astray(output, source)
    return BatchJob(source.resolve(), output.resolve(), restoring.options(), **fields, **running.settings())


def run_job(job: BatchJob, tasks: Sequence[Task], running: Running) -> int:
    """Restore ``tasks`` in this process, tell what becomes of them, and return the exit code."""
    return _run(job, tasks, running, engine_for=partial(_engine, None, None))


def _run(job: BatchJob, tasks: Sequence[Task], running: Running, engine_for: Any) -> int:
    from monai_sasm.batch.run import StoppedError, Summary, run

    known = {task.id: task for task in tasks}
    summary = Summary(planned=len(known))
    waiting, begun = sum(task.refusal is None for task in tasks), False
    try:
        with progress_bar(waiting, running.quiet) as bar, engine_for(bar and bar.update) as engine:
            begun = not tasks
            for row in run(job, tasks, engine, summary=summary):
                begun, task = True, known[row["input"]["id"]]
                place = {"path": job.output if job.flat else job.output / task.target}
                name = f"{task.entry.label} ({task.id})" if job.identify else task.id
                tell(row, name, place, as_json=running.as_json)
    except KeyboardInterrupt:
        begun = True
        logger.error("interrupted; what was finished stays, nothing is half-written, --resume goes on")
        return INTERRUPTED
    except StoppedError as error:
        begun = True
        logger.error("%s", error)
        return SOME_FAILED if summary.ok + summary.before else ALL_FAILED
    finally:
        if begun and not running.quiet:  # else the error is all there is to say
            _print_summary(summary, job)
    statuses = ["ok"] * (summary.ok + summary.before) + ["failed"] * summary.failed + ["skipped"] * summary.skipped
    return exit_code(statuses)


@contextmanager
def _engine(scheduler: str | None, cluster: Path | None, advance: Any) -> Iterator[Engine]:
    if scheduler or cluster:
        from monai_sasm.batch.cluster import connected

        with connected(scheduler, cluster) as engine:
            yield lambda tasks, job: _counted(engine(tasks, job), advance)
        return
    from monai_sasm.batch.local import in_process

    yield partial(in_process, progress=advance)


def _counted(rows: Iterator[Any], advance: Any) -> Iterator[Any]:
    for row in rows:
        if advance:
            advance(1)
        yield row


def _print_summary(summary: Summary, job: BatchJob) -> None:
    """A few lines on stderr, also when nobody asked for messages: the end of a night's work."""
    from monai_sasm.batch.manifest import NAME

    counts = [(summary.ok, "restored"), (summary.before, "done before"), (summary.skipped, "passed over")]
    counts += [(summary.failed, "failed"), (summary.left, "left")]
    lines = [", ".join(f"{count} {word}" for count, word in counts if count) or "nothing found"]
    if summary.ok:
        extra = f", {summary.seconds / summary.ok:.1f} s per series"
        lines[0] += f" in {summary.seconds:.0f} s{extra}, at most {summary.peak_mb} MiB of memory"
        lines += [summary.overhead] if not summary.before else []
    lines += [f"failed: {row['input']['id']}: {row['reason']}" for row in summary.reasons[:SHOWN_FAILURES]]
    if len(summary.reasons) > SHOWN_FAILURES:
        lines.append(f"and {len(summary.reasons) - SHOWN_FAILURES} more failed")
    if (job.output / NAME).exists():
        lines.append(f"manifest: {job.output / NAME}")
    for line in lines:
        say(f"sasm: {line}", sys.stderr)
