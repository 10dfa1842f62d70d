"""Rows: what is told about one image, the same for every command; docs/rows.md explains each field."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_sasm import __version__
from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.errors import NotAnImageError, as_flags, error_name, reason_of
from monai_sasm.io.entry import Entry
from monai_sasm.io.nifti.names import stem

SCHEMA = "sasm.row/1"  # configs/row.schema.json

Row = dict[str, Any]

DONE_BEFORE = "an earlier run has done it: taken over where input, models and options are the same, else made anew"
"""What a plan notes of a task that has a result already."""

_NAMING = {"name", "path", "map_paths", "description", "study", "series", "sop_class"}  # only with ``identify``


def new_row(command: str, run: str, **about_input: Any) -> Row:
    """A row before anything is done.

    Args:
        command: ``restore``, ``thin``, ``batch``, ``node`` or ``evaluate brats``.
        run: name of the run.
        about_input: ``id`` and whatever else is known of the input.
    """
    return {
        "schema": SCHEMA,
        "command": command,
        "run": run,
        "version": __version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "status": "planned",
        "reason": None,
        "input": about_input,
        "output": None,
        "notes": [],
    }


def row_of(task: Task, job: BatchJob) -> Row:
    """The row of a task before anything is done; without names, paths and UIDs unless the job asks for them."""
    entry = task.entry
    row = new_row(
        job.command,
        job.run,
        id=task.id,
        format=entry.format,
        modality=entry.modality.value if entry.modality else None,
        geometry=entry.geometry,
        files=len(entry.paths),
    )
    row["notes"] = list(entry.notes)
    if task.refusal is not None:
        row |= {"status": "failed" if task.error else "skipped", "reason": as_flags(task.refusal)}
    if task.error is not None:
        row["error"] = task.error
    if job.identify:
        row["input"] |= {"name": entry.label, "path": str(place_of(entry)), **_identifiers(entry, job.describe)}
        row["output"] = {"path": str(job.output / task.target)} if task.refusal is None else None
    return row


def taken_over(earlier: Row, task: Task, job: BatchJob) -> Row:
    """The row of an earlier run's result, with names, paths and UIDs where this job asks for them, and only there."""
    row = Row(earlier)
    row["input"] = {key: value for key, value in earlier["input"].items() if key not in _NAMING}
    row["output"] = {key: value for key, value in earlier["output"].items() if job.identify or key not in _NAMING}
    if job.identify:
        now = row_of(task, job)
        row["input"] |= {key: value for key, value in now["input"].items() if key in _NAMING}
        row["output"] |= now["output"]
    return row


def ended_by(error: Exception, task: Task, job: BatchJob) -> Row:
    """Status, reason and error of a task that an error has ended; no names in it unless the job asks for them."""
    reason = as_flags(reason_of(error, private=() if job.identify else _names(task, job)))
    if isinstance(error, (FileExistsError, NotAnImageError)):
        return {"status": "skipped", "reason": reason}
    return {"status": "failed", "reason": reason, "error": error_name(error)}


def refused_by(error: Exception, task: Task, job: BatchJob) -> Task:
    """The task, refused for what an error says before anything is done for it."""
    told = ended_by(error, task, job)
    return replace(task, refusal=told["reason"], error=told.get("error"))


def place_of(entry: Entry) -> Path:
    """The file, or the folder that holds the files."""
    return entry.paths[0] if len(entry.paths) == 1 or entry.format != "dicom" else entry.paths[0].parent


def _identifiers(entry: Entry, describe: bool) -> dict[str, str]:
    if entry.format != "dicom":
        return {}
    from monai_sasm.io.dicom.header import read_header

    header = read_header(entry.paths[0])
    if header is None:
        return {}
    found = {"study": header.study, "series": header.series, "sop_class": header.sop_class}
    return found | {"description": header.description} if describe else found


def _names(task: Task, job: BatchJob) -> set[str]:
    """Paths, and their parts, that a reason might quote: folders are named after patients."""
    names = {
        *map(str, job.sources),
        *(root.name for root in job.sources),
        str(job.output),
        str(task.target),
        *task.target.parts,
        task.entry.name,
    }
    for path in (*task.entry.paths, job.output / task.target):
        names |= {str(path), str(path.parent), path.parent.name, path.name, stem(path)}
    return names
