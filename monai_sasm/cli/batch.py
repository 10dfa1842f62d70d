"""``sasm batch``: the options, what is printed, and how it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monai_sasm.cli.output import (
    ALL_FAILED,
    INTERRUPTED,
    SOME_FAILED,
    exit_code,
    logger,
    one_line_errors,
    print_row,
    print_table,
    set_up_logging,
    show_progress,
)
from monai_sasm.cli.restore import (
    AsJson,
    Device,
    Expert,
    ForceRefiner,
    Gate,
    KeepPrivate,
    ModalityOption,
    Passes,
    Precision,
    Quiet,
    Refine,
    Refiner,
    SaveMaps,
    Sigma,
    Strength,
    TopK,
    Trust,
    Upscale,
    Verbose,
)

if TYPE_CHECKING:
    from monai_sasm.batch.job import Job, Task
    from monai_sasm.batch.plan import Plan
    from monai_sasm.batch.run import Engine, Summary

MERCURE_OUTPUT = "MERCURE_OUT_DIR"
INPUTS = ["MERCURE_IN_DIR", "MONAI_INPUTPATH", "HOLOSCAN_INPUT_PATH"]
OUTPUTS = [MERCURE_OUTPUT, "MONAI_OUTPUTPATH", "HOLOSCAN_OUTPUT_PATH"]
SHOWN_FAILURES = 20

Input = Annotated[Path, typer.Argument(metavar="IN", envvar=INPUTS, help="Folder of DICOM studies, NIfTI or photos.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", envvar=OUTPUTS, help="Folder for results and manifest.jsonl.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Take over what is done already with this input, models and parameters.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace other results; with --resume only those that are out of date.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the series with their id and place; write nothing.")]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on this Dask scheduler, for example tcp://host:8786.")
]
Cluster = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="YAML file of a cluster to start: kind: slurm, jobs: 8, queue: ..."),
]
Identify = Annotated[
    bool, typer.Option("--identify", help="Write paths and UIDs into the manifest; they may name patients.")
]
Flat = Annotated[
    bool | None,
    typer.Option(help="DICOM files straight into OUT as SERIES#OBJECT.dcm; by default when mercure is the caller."),
]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Take over a ledger that was copied here with its results; see SECURITY.md.")
]


def batch(
    source: Input,
    output: Output,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    scheduler: Scheduler = None,
    cluster: Cluster = None,
    identify: Identify = False,
    flat: Flat = None,
    adopt: Adopt = False,
    expert: Expert = None,
    modality: ModalityOption = None,
    strength: Strength = 1.0,
    sigma: Sigma = None,
    top_k: TopK = None,
    passes: Passes = None,
    refine: Refine = 0.0,
    refiner: Refiner = None,
    force_refiner: ForceRefiner = False,
    upscale: Upscale = False,
    save_maps: SaveMaps = False,
    gate: Gate = None,
    device: Device = "auto",
    precision: Precision = "float32",
    trust: Trust = None,
    keep_private: KeepPrivate = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Restore a whole tree, series by series, here or on a cluster; every outcome is a line of OUT/manifest.jsonl.

    A crash costs the series under way: run again with --resume. Orchestrators may give IN and OUT in the environment.

    Exit codes: 0 done, 2 wrong use, 3 nothing to do, 4 all failed, 8 some failed or left, 130 interrupted.
    """
    set_up_logging(-1 if quiet else verbose)
    with one_line_errors():
        if scheduler and cluster:
            raise ValueError("--scheduler is for a running cluster, --cluster starts one; give one of them")
        from monai_sasm.batch.job import Job
        from monai_sasm.batch.plan import plan
        from monai_sasm.io.nofollow import refuse_astray
        from monai_sasm.restoration.options import Options

        refuse_astray(output, source)
        job = Job(
            source=source.resolve(),
            output=output.resolve(),
            options=Options(
                expert=expert,
                strength=strength,
                top_k=top_k,
                passes=passes,
                sigma=sigma,
                refine=refine,
                keep_maps=save_maps,
                refiner=refiner,
                force_refiner=force_refiner,
                upscale=upscale,
                gate=gate,
            ),
            device=device,
            precision=precision,
            trust=tuple(path.resolve() for path in trust or []),
            resume=resume,
            overwrite=overwrite,
            keep_private=keep_private,
            identify=identify,
            flat=str(output) == os.environ.get(MERCURE_OUTPUT) if flat is None else flat,
            adopt=adopt,
        )
        planned = plan(job, modality)
        if dry_run:
            _print_plan(planned, job, as_json)
            raise typer.Exit(exit_code(["planned"] * len(planned.tasks) + ["skipped"] * len(planned.refused)))
        raise typer.Exit(_run(job, planned, scheduler, cluster, as_json, quiet))


def _run(job: Job, plan: Plan, scheduler: str | None, cluster: Path | None, as_json: bool, quiet: bool) -> int:
    from monai_sasm.batch.run import StoppedError, Summary, run

    places = {task.id: task for task in (*plan.tasks, *(task for task, _ in plan.refused))}
    summary = Summary(planned=len(places))
    shown = show_progress(quiet)
    try:
        with _bar(len(plan.tasks), shown) as advance, _engine(scheduler, cluster, advance) as engine:
            for row in run(job, plan, engine, summary):
                _tell(row, places[row["input"]["id"]], job, as_json)
    except KeyboardInterrupt:
        logger.error("interrupted; what was finished stays, nothing is half-written, --resume goes on")
        return INTERRUPTED
    except StoppedError as error:
        logger.error("%s", error)
        return SOME_FAILED if summary.ok + summary.before else ALL_FAILED
    finally:
        if not quiet:
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
        advance(1)
        yield row


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Any]:
    """A bar on stderr that counts series, in parts, with the time left."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not shown:
        yield lambda part: None
        return
    layout = "{l_bar}{bar}| {n:.1f}/{total} series [{elapsed}<{remaining}]"
    with tqdm(total=total, file=sys.stderr, leave=False, bar_format=layout) as bar, logging_redirect_tqdm([logger]):
        yield bar.update


def _tell(row: dict[str, Any], task: Task, job: Job, as_json: bool) -> None:
    name = task.entry.name
    if row["status"] == "failed":
        logger.error("%s (%s): failed: %s", name, task.id, row["reason"])
    elif row["status"] == "skipped":
        logger.warning("%s (%s): skipped: %s", name, task.id, row["reason"])
    else:
        logger.info("%s (%s): restored in %.1f s", name, task.id, row["seconds"])
    if as_json:
        print_row(row)
    elif row["status"] == "ok":
        print(job.output if job.flat else job.output / task.target, flush=True)


def _print_plan(plan: Plan, job: Job, as_json: bool) -> None:
    from monai_sasm.batch.rows import describe

    found: list[tuple[Task, str | None]] = [*((task, None) for task in plan.tasks), *plan.refused]
    if as_json:
        named = replace(job, identify=True)  # for whoever looks for the series of an id; nothing is kept
        for task, reason in found:
            print_row(describe(task, named) | {"status": "skipped" if reason else "planned", "reason": reason})
        return
    cells: list[tuple[str, ...]] = []
    for task, reason in found:
        entry = task.entry
        place = os.path.relpath(entry.paths[0] if len(entry.paths) == 1 else entry.paths[0].parent, job.source)
        kind = entry.modality.value if entry.modality else "?"
        what = f"{place} -> {task.target}" if reason is None else f"{place}: {reason}"
        cells.append(("skip" if reason else "restore", task.id, kind, entry.geometry, str(len(entry.paths)), what))
    print_table(("plan", "id", "what", "geometry", "files", "place below IN, and result or reason"), cells)


def _print_summary(summary: Summary, job: Job) -> None:
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
    if summary.planned:
        lines.append(f"manifest: {job.output / NAME}")
    for line in lines:
        print(f"sasm: {line}", file=sys.stderr)
