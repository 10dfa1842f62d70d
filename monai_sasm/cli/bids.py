"""``sasm bids``: the command line of BIDS apps; ``sasm batch`` does the work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monai_sasm.cli.arguments import Restoring, Running, grouped
from monai_sasm.cli.batch import Overwrite, Resume, job_for, run_job
from monai_sasm.cli.output import one_line_errors, set_up_logging


@grouped
def bids(
    source: Annotated[Path, typer.Argument(metavar="BIDS_DIR", exists=True, file_okay=False, help="BIDS data set.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT_DIR", help="Folder of the derivatives.")],
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="participant; there is no group level.")],
    restoring: Restoring,
    running: Running,
    participant_label: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label",
            "--participant_label",
            metavar="LABEL",
            help="Only this participant, with or without sub-; repeat it.",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Restore a BIDS data set into BIDS derivatives: sub-1_T1w.nii.gz becomes sub-1_desc-denoised_T1w.nii.gz.

    Exit codes as those of `sasm batch`.
    """
    set_up_logging(running.verbosity)
    with one_line_errors():
        from monai_sasm.batch import bids as layout
        from monai_sasm.batch.plan import plan

        if level != "participant":
            raise ValueError(f"the analysis level must be participant, got {level!r}")
        if not layout.is_root(source):
            raise ValueError(f"{source} is no BIDS data set: {layout.DESCRIPTION} is missing")
        wanted = {f"sub-{label.removeprefix('sub-')}" for label in participant_label or ()}
        absent = sorted(name for name in wanted if not (source / name).is_dir())
        if absent:
            raise ValueError(f"no participant {', '.join(absent)} in the data set")
        job = job_for(source, output, restoring, running, resume=resume, overwrite=overwrite)
        tasks = [
            task for task in plan(job) if not wanted or task.entry.paths[0].relative_to(job.source).parts[0] in wanted
        ]
        raise typer.Exit(run_job(job, tasks, running))
