"""What a run will do: one task per image, each with a place of its own, or the reason why it will not be restored."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_sasm.batch import bids
from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.row import refused_by
from monai_sasm.errors import UnreadableError
from monai_sasm.io.apart import decoding_apart
from monai_sasm.io.entry import Entry, safe_name
from monai_sasm.io.formats import inventory, is_file_name
from monai_sasm.io.nifti.names import stem
from monai_sasm.restoration.installed import Installed
from monai_sasm.restoration.planning import Planned, one_image, plan_results, visible
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
        entries = inventory(job.sources, job.modality, force_modality=job.force_modality)
    entries = visible(entries, job.sources, job.output, _hidden(job))
    alone = one_image(entries, job.output, again=job.again)
    installed = Installed.find(job.trust)
    installed.check(job.options)
    planned = plan_results(
        entries,
        job.output,
        alone=alone,
        root_of=job.root_of,
        mismatch=lambda modality: installed.mismatch(modality, job.options),
        again=job.again,
        rename=lambda entry, target: _renamed(entry, target, job),
        maps=_keeps_maps(job),
        # with a ledger, an earlier run's result may be taken over
        check=None if job.ledger else lambda entry, target: _check(entry, target, job),
    )
    done = Ledger(job.output).identities() if job.ledger else frozenset()
    return tuple(_task(one, job, done) for one in planned)


def check_free(task: Task, job: BatchJob) -> dict[str, Any] | None:
    """What a task of a job with a ledger is refused for before its pixels are read; its own earlier record, if any.

    Raises:
        FileExistsError: an earlier run has done it and is not to be gone on after, or something else is in its place.
        ValueError: see :func:`monai_sasm.restoration.targets.check_target`.
    """
    ledger, again = Ledger(job.output), job.resume or job.overwrite
    earlier = ledger.record(task.id)
    if earlier is not None and not again:
        raise FileExistsError("an earlier run has done it; pass resume=True to go on after it, or overwrite=True")
    # of a result of which somebody has removed some: it is made whole
    own = ledger.record(task.id, whole=False) if earlier is None else earlier
    if own is None or not again:
        check_targets(task, job)
    return own


def check_targets(task: Task, job: BatchJob) -> None:
    """:func:`monai_sasm.restoration.targets.check_target` of a task, before anything is done for it."""
    _check(task.entry, job.output / task.target, job)


def _hidden(job: BatchJob) -> list[Path]:
    """Folders of the input that hold none of it."""
    raw = job.ledger and bids.is_root(job.source)
    return [*([job.output] if job.ledger else []), *(job.source / name for name in bids.NOT_RAW if raw)]


def _renamed(entry: Entry, target: Path, job: BatchJob) -> Path:
    """The place of a result under the name that the job has for it."""
    if job.nifti and not is_file_name(target):
        target = target.with_name(f"{target.name}.nii.gz")
    derived = bids.derived_name(target.name) if job.ledger and entry.format == "nifti" else None
    return job.output / target.with_name(derived or target.name).relative_to(job.output)


def _task(planned: Planned, job: BatchJob, done: Collection[str]) -> Task:
    entry = planned.entry
    target = Path(entry.name) if planned.target is None else planned.target.relative_to(job.output)
    task = Task(_identity(entry, target, job, done), entry, target, refusal=planned.refusal)
    if planned.error is not None:
        return _refused(planned.error, task, job)
    return replace(task, error=UnreadableError.__name__) if entry.unreadable else task


def _refused(error: Exception, task: Task, job: BatchJob) -> Task:
    """The task without a result: a fault of the system has failed, what cannot be written as asked is passed over."""
    told = refused_by(error, task, job)
    return told if isinstance(error, OSError) else replace(told, error=None)


def _check(entry: Entry, target: Path, job: BatchJob) -> None:
    check_target(entry, target, overwrite=job.overwrite, maps=_keeps_maps(job))


def _keeps_maps(job: BatchJob) -> bool:
    return bool(getattr(job.options, "keep_maps", False))


def _identity(entry: Entry, target: Path, job: BatchJob, done: Collection[str]) -> str:
    """Where it is below the input, as a hash. A DICOM series is known by its folder and its name, which is a hash of
    its UIDs; the name of other files may have a number that depends on what else is there.

    Args:
        entry: the image.
        target: place of its result below the output.
        job: where it is looked for.
        done: what the ledger has a record of. Where it knows a series of this place by another name (that of its only
            file, or of one of several folders), the series keeps it: its result is brought up to date.
    """
    first, source = entry.paths[0], job.root_of(entry)
    own = safe_name(stem(first))
    if entry.format != "dicom" or first == source or (len(entry.paths) == 1 and entry.name.startswith(own)):
        return _hashed(first, source, entry.name if entry.format == "dicom" else own)
    folder = Path(os.path.commonpath([path.parent for path in entry.paths]))
    identity = _digest(folder.relative_to(source).as_posix(), entry.name)
    if done and identity not in done:
        for place in dict.fromkeys(place for path in entry.paths for place in (path.parent, path)):
            former = _hashed(place, source, entry.name)
            record = Ledger(job.output).record(former, whole=False) if former in done else None
            if record is not None and (job.flat or target.as_posix() in record["units"]):
                return former
    return identity


def _hashed(place: Path, source: Path, name: str) -> str:
    inside = place != source and place.is_relative_to(source)
    return _digest(place.relative_to(source).as_posix() if inside else place.name, name)


def _digest(below: str, name: str) -> str:
    return hashlib.sha256(os.fsencode(f"{below}\n{name}")).hexdigest()[:16]
