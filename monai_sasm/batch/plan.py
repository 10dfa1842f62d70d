"""What a batch will do: one task per series, each with a place of its own, and one row for everything it will not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monai_sasm.batch import bids
from monai_sasm.batch.job import Job, Task
from monai_sasm.batch.rows import reason_without_names
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory, output_path
from monai_sasm.io.nifti.names import stem
from monai_sasm.types import Modality


@dataclass(frozen=True)
class Plan:
    """Tasks to run, and what is passed over.

    Args:
        tasks: in the order of the folders.
        refused: task and reason, for what cannot be restored rightly.
    """

    tasks: tuple[Task, ...]
    refused: tuple[tuple[Task, str], ...]


def plan(job: Job, modality: Modality | None = None) -> Plan:
    """Look through the input, headers only.

    The output may lie inside the input (``derivatives/sasm`` of a BIDS data set): what is in it is no input. Of a
    BIDS data set only the raw images count.

    Args:
        job: see :class:`monai_sasm.batch.job.Job`.
        modality: what NIfTI files are that do not say it.

    Raises:
        FileNotFoundError: there is no such input.
        ValueError: the output would cover the input.
    """
    if job.source.is_relative_to(job.output):
        raise ValueError("the output folder holds the input; choose a folder beside it or below it")
    tasks: list[Task] = []
    refused: list[tuple[Task, str]] = []
    taken: set[Path] = set()
    for entry in _entries(job, modality):
        task, reason = _task(entry, job)
        if reason is None:
            places = _places(task)
            if places & taken:
                reason = "its result would have the same name as another one of this folder; rename one of the two"
            taken |= places
        if reason is None:
            tasks.append(task)
        else:
            refused.append((task, reason))
    return Plan(tuple(tasks), tuple(refused))


def _entries(job: Job, modality: Modality | None) -> Iterator[Entry]:
    hidden = [job.output]
    if bids.is_root(job.source):
        hidden += [job.source / name for name in bids.NOT_RAW]
    for entry in inventory(job.source, modality):
        if not any(path.is_relative_to(folder) for folder in hidden for path in entry.paths[:1]):
            yield entry


def _task(entry: Entry, job: Job) -> tuple[Task, str | None]:
    identity = _identity(entry, job.source)
    try:
        target = output_path(entry, job.source, job.output).relative_to(job.output)
    except ValueError as error:
        task = Task(identity, entry, Path(entry.name))
        return task, entry.refusal or reason_without_names(error, task, job)
    derived = bids.derived_name(target.name) if entry.format == "nifti" else None
    if derived is not None:
        target = target.with_name(derived)
    return Task(identity, entry, target), entry.refusal


def _identity(entry: Entry, source: Path) -> str:
    """Where it is below the input, as a hash. A DICOM series is known by its name, which is a hash of its UIDs."""
    first = entry.paths[0]
    place = first.parent if entry.format == "dicom" and len(entry.paths) > 1 else first
    below = place.relative_to(source).as_posix() if place != source else place.name
    return hashlib.sha256(os.fsencode(f"{below}\n{entry.name}")).hexdigest()[:16]


def _places(task: Task) -> set[Path]:
    """The files and folders a result takes, beside its maps."""
    sidecar = {task.target.with_name(stem(task.target) + ".json")} if task.entry.format == "nifti" else set()
    return {task.target, *sidecar}
