"""Rows of the manifest: what is said about a series, and what is not, for folders may be named after patients."""

from __future__ import annotations

import errno
from datetime import datetime, timezone
from pathlib import Path

from monai_sasm.batch.job import Job, Task
from monai_sasm.batch.manifest import SCHEMA, Row
from monai_sasm.errors import reason_of
from monai_sasm.io.entry import Entry
from monai_sasm.io.nifti.names import stem

DISK_FULL = {errno.errorcode[number] for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)}
"""Errors after which no further series of this run can succeed."""


def describe(task: Task, job: Job) -> Row:
    """The row of a task before anything is done; without names and UIDs unless the job asks for them."""
    entry = task.entry
    row: Row = {
        "schema": SCHEMA,
        "run": job.run,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "status": None,
        "reason": None,
        "input": {
            "id": task.id,
            "format": entry.format,
            "modality": entry.modality.value if entry.modality else None,
            "geometry": entry.geometry,
            "files": len(entry.paths),
        },
        "output": None,
        "notes": list(entry.notes),
    }
    if job.identify:
        row["input"] |= {"path": str(_place(entry)), **_identifiers(entry)}
        row["output"] = {"path": str(job.output / task.target)}
    return row


def _place(entry: Entry) -> Path:
    return entry.paths[0] if len(entry.paths) == 1 else entry.paths[0].parent


def _identifiers(entry: Entry) -> dict[str, str]:
    if entry.format != "dicom":
        return {}
    from monai_sasm.io.dicom.header import read_header

    header = read_header(entry.paths[0])
    return {} if header is None else {"study": header.study, "series": header.series, "sop_class": header.sop_class}


def kind_of(error: Exception) -> str:
    """The name of an error: of the system's, where it is one."""
    if isinstance(error, OSError) and error.errno is not None:
        return errno.errorcode.get(error.errno, "OSError")
    return type(error).__name__


def reason_without_names(error: Exception, task: Task, job: Job) -> str:
    """The reason in one line; paths are taken out of it, for folders are named after patients."""
    reason = reason_of(error)
    if job.identify:
        return reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    names: set[str] = {str(job.source), str(job.output), str(task.target), task.entry.name}
    for path in (*task.entry.paths, job.output / task.target):
        names |= {str(path), str(path.parent), path.name, stem(path)}
    for name in sorted(names, key=len, reverse=True):
        if len(name) > 3:
            reason = reason.replace(name, "...")
    return reason
