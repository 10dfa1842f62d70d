"""What a run will do: one task per image, each with a place of its own, or the reason why it will not be restored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from monai_sasm.batch import bids
from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.row import refused_by
from monai_sasm.errors import RefusedError, UnreadableError
from monai_sasm.io.apart import decoding_apart
from monai_sasm.io.dicom.geometry import UNEVEN
from monai_sasm.io.distinct import distinct
from monai_sasm.io.entry import RESTORED, Entry, safe_name
from monai_sasm.io.formats import inventory, is_file_name, output_path
from monai_sasm.io.nifti.names import stem
from monai_sasm.io.nofollow import inside
from monai_sasm.restoration.installed import Installed
from monai_sasm.restoration.targets import check_output, check_target


def plan(job: BatchJob) -> tuple[Task, ...]:
    """Look through the input, headers only; tasks in the order of the folders, those that are refused among them.

    The output may lie inside the input (``derivatives/sasm`` of a BIDS data set): what is in it is no input. With a
    ledger, of a BIDS data set only the raw images count.

    Raises:
        FileNotFoundError: there is no such input.
        NotADirectoryError, PermissionError: see :func:`monai_sasm.restoration.targets.check_output`.
        BundleError: the options name an expert, a gate or a refiner that is not installed.
        ValueError: the output of a job with a ledger would cover the input, or is the name of one file for several
            images.
    """
    check_output(job.output, named=not job.ledger)
    if job.ledger and job.source.is_relative_to(job.output):
        raise ValueError("the output folder holds the input; choose a folder beside it or below it")
    with decoding_apart(job.ledger or any(source.is_dir() for source in job.sources)):
        entries = list(_entries(job))
    usable = sum(entry.refusal is None and (job.again or not entry.is_result) for entry in entries)
    if usable > 1 and is_file_name(job.output) and not job.output.is_dir():
        raise ValueError(f"{job.output.name} is the name of one file, and there are {usable} images; name a folder")
    installed = Installed.find(job.trust)
    installed.check(job.options)
    tasks = [_task(entry, job, alone=usable == 1) for entry in entries]
    tasks = [
        task if task.refusal else replace(task, refusal=installed.mismatch(task.entry.modality, job.options))
        for task in tasks
    ]
    going = [task for task in tasks if task.refusal is None]
    wanted = [job.output / task.target for task in going]
    places = iter(distinct(wanted, [task.entry for task in going], maps=_keeps_maps(job)))
    return tuple(task if task.refusal else _placed(task, next(places), job) for task in tasks)


def check_targets(task: Task, job: BatchJob) -> None:
    """:func:`monai_sasm.restoration.targets.check_target` of a task, before anything is done for it."""
    check_target(task.entry, job.output / task.target, overwrite=job.overwrite, maps=_keeps_maps(job))


def _entries(job: BatchJob) -> Iterator[Entry]:
    output = job.output.absolute()
    inside = any(output != root.absolute() and output.is_relative_to(root.absolute()) for root in job.sources)
    hidden = [output] if job.ledger or inside else []
    if job.ledger and bids.is_root(job.source):
        hidden += [job.source / name for name in bids.NOT_RAW]
    for entry in inventory(job.sources, job.modality, force_modality=job.force_modality):
        if not any(entry.paths[0].absolute().is_relative_to(folder.absolute()) for folder in hidden):
            yield entry


def _task(entry: Entry, job: BatchJob, alone: bool) -> Task:
    task = Task(_identity(entry, job.root_of(entry)), entry, Path(entry.name), refusal=entry.refusal)
    if entry.unreadable:
        return replace(task, error=UnreadableError.__name__)
    if entry.refusal is not None:
        return task
    if entry.is_result and not job.again:
        return replace(task, refusal=RESTORED)
    try:
        target = output_path(entry, job.root_of(entry), job.output, alone=alone)
        if job.nifti and not is_file_name(target):
            target = target.with_name(f"{target.name}.nii.gz")
        derived = bids.derived_name(target.name) if job.ledger and entry.format == "nifti" else None
        task = replace(task, target=target.with_name(derived or target.name).relative_to(job.output))
        if entry.format == "dicom" and entry.geometry in UNEVEN and is_file_name(target):
            raise RefusedError(f"{entry.geometry} slices have no affine, which NIfTI needs; write DICOM")
    except (ValueError, OSError) as error:
        return _refused(error, task, job)
    return task


def _placed(task: Task, target: Path, job: BatchJob) -> Task:
    """The task with the place that its result gets; refused where something is in the way."""
    try:
        if target != job.output / task.target:
            inside(target.parent, target.name)
            task = replace(task, target=target.relative_to(job.output))
        if not job.ledger:  # with one, an earlier run's result may be taken over
            check_targets(task, job)
    except (ValueError, OSError) as error:
        return _refused(error, task, job)
    return task


def _refused(error: Exception, task: Task, job: BatchJob) -> Task:
    """The task without a result: a fault of the system has failed, what cannot be written as asked is passed over."""
    told = refused_by(error, task, job)
    return told if isinstance(error, OSError) else replace(told, error=None)


def _keeps_maps(job: BatchJob) -> bool:
    return bool(getattr(job.options, "keep_maps", False))


def _identity(entry: Entry, source: Path) -> str:
    """Where it is below the input, as a hash. A DICOM series is known by its name, which is a hash of its UIDs; that of
    other files may have a number that depends on what else is there.
    """
    first = entry.paths[0]
    place = first.parent if entry.format == "dicom" and len(entry.paths) > 1 else first
    inside = place != source and place.is_relative_to(source)
    below = place.relative_to(source).as_posix() if inside else place.name
    name = entry.name if entry.format == "dicom" else safe_name(stem(first))
    return hashlib.sha256(os.fsencode(f"{below}\n{name}")).hexdigest()[:16]
