"""What is done with one image: it is restored or thinned and written, with a ledger or without, here or on a worker."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from monai_sasm import __version__
from monai_sasm.batch import bids
from monai_sasm.batch.job import BatchJob, Task
from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.plan import check_free
from monai_sasm.batch.row import SCHEMA, Row, ended_by, row_of, taken_over
from monai_sasm.errors import NotAnImageError, RefusedError, as_flags
from monai_sasm.io.apart import decoding_apart
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.nifti.names import stem
from monai_sasm.io.placing import place, staged
from monai_sasm.restoration.files import open_restorer, peak_mb, restore_to, thin_to
from monai_sasm.restoration.options import Thinning
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.restoration.targets import is_result
from monai_sasm.restoration.thin import thin_derivation, work_units
from monai_sasm.types import Modality

MAX_DEATHS = 3  # of its process, after which a task is given up
PUT_OFF = "put off"  # status of a task that lost its process before, until the others are done
_CHUNK = 1 << 22

Progress = Callable[[float], object]
"""Told the part of an image that was done since the last call; the parts add up to 1."""
Begin = Callable[[str, int], object]
"""Told the name of an image and its number of slices when work on its pixels begins."""

logger = logging.getLogger("monai_sasm")


def run_task(task: Task, job: BatchJob, progress: Progress | None = None, *, last: bool = False) -> Row:
    """Restore one image, commit the result, and say what became of it. Runs any number of times with one effect.

    Args:
        task: the image.
        job: with a ledger.
        progress: see :data:`Progress`.
        last: the other tasks are done. Before that, one whose process ended while at work on it is put off: should it
            be the cause, it costs the others nothing, and should it not, it is not hit again and again.

    Returns:
        The row for the manifest: ``ok``, ``skipped`` or ``failed``; or a row with the status :data:`PUT_OFF`. An error
        ends this image, never the batch.
    """
    ledger = Ledger(job.output)
    row = row_of(task, job)
    if ledger.deaths(task.id) and not last:
        return row | {"status": PUT_OFF}
    try:
        ledger.settle(task.id)
        restorer = _restorer_here(job)
        unsuitable = restorer.mismatch(task.entry.modality, job.options)
        if unsuitable:
            return row | {"status": "skipped", "reason": as_flags(unsuitable)}
        # loads the networks before the start counts: a process that ends while it loads them speaks for no task
        made = _derivation(task.entry.modality, job, restorer)
        if ledger.start(task.id) > MAX_DEATHS:
            return row | died(MAX_DEATHS)
        with decoding_apart():
            return _committed(task, job, made, restorer=restorer, progress=progress)
    except Exception as error:  # one broken series must not stop a night's work
        logger.debug("traceback", exc_info=True)
        return row | ended_by(error, task, job)
    finally:
        ledger.end(task.id)


def run_at_once(
    task: Task, job: BatchJob, *, restorer: Restorer, progress: Progress | None = None, begin: Begin | None = None
) -> Row:
    """Restore one image, put the result in its place, all of it or nothing, and say what became of it.

    Args:
        task: the image; one that is refused gives a row that says so.
        job: without a ledger.
        restorer: see :func:`restorer_of`.
        progress: see :data:`Progress`.
        begin: see :data:`Begin`.
    """
    row = row_of(task, job)
    if task.refusal is not None:
        return row
    try:
        target = job.output / task.target
        unsuitable = restorer.mismatch(task.entry.modality, job.options)
        if unsuitable:
            return row | {"status": "skipped", "reason": as_flags(unsuitable)}
        root = job.output if target != job.output else target.parent
        with staged(root, (job.root_of(task.entry), *task.entry.paths)) as folder:
            written = folder / target.relative_to(root)
            done = _written(task, job, written, restorer=restorer, progress=progress, begin=begin)
            place(folder, root, overwrite=job.overwrite, ours=is_result)
        return row | done
    except Exception as error:
        logger.debug("traceback", exc_info=True)
        return row | ended_by(error, task, job)


def restorer_of(job: BatchJob) -> Restorer:
    """Gate and experts, loaded once per process.

    Raises:
        BundleError: a bundle is missing or incomplete.
    """
    return _restorer(job.device, job.precision, trust=job.trust, options=job.options)


def died(times: int) -> Row:
    """Status, reason and error of a task that took its process along again and again."""
    reason = f"its process ended {times} times while at work on it: a crash, too little memory or time"
    return {"status": "failed", "reason": reason, "error": "ProcessDied"}


def input_hash(entry: Entry) -> str:
    """sha256 over the content of all files of an entry, in its order; their names do not count."""
    digest = hashlib.sha256()
    for path in entry.paths:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


_restorer = lru_cache(maxsize=1)(open_restorer)


def _restorer_here(job: BatchJob) -> Restorer:
    if job.version != __version__:
        raise RuntimeError(f"this worker has monai_sasm {__version__}, the batch runs {job.version}; install the same")
    return restorer_of(job)


def _committed(task: Task, job: BatchJob, made: Derivation, *, restorer: Restorer, progress: Progress | None) -> Row:
    ledger = Ledger(job.output)
    earlier = ledger.record(task.id)
    if earlier is not None and earlier["row"]["run"] == job.run:
        return Row(earlier["row"])  # the scheduler runs it again, for it lost a worker that had finished
    own = check_free(task, job)  # before the input is read
    content = input_hash(task.entry)
    key = _key(content, made, task=task, job=job)
    if earlier is not None and job.resume and earlier["key"] == key:
        return taken_over(earlier["row"], task, job)
    if own is not None and not job.overwrite and own["key"] != key and ledger.changed(task.id):
        raise RefusedError(
            "the result there was made from another input, with other models or parameters, or is laid out otherwise, "
            "and was changed since; pass overwrite=True to replace it"
        )
    try:
        return _made(task, job, ledger, content=content, key=key, restorer=restorer, progress=progress)
    except (FileExistsError, NotAnImageError) as error:
        if own is None:
            raise
        raise RefusedError(str(error)) from error  # what is there is out of date or not whole, and stays so: a failure


def _made(
    task: Task,
    job: BatchJob,
    ledger: Ledger,
    *,
    content: str,
    key: str,
    restorer: Restorer,
    progress: Progress | None,
) -> Row:
    """Restore an image and commit the result, which takes the place of an earlier one of this task."""
    row = row_of(task, job)
    with ledger.staging(job.run, task.id) as folder:
        row |= _written(task, job, folder / task.target, restorer=restorer, progress=progress)
        _arrange(task, job, folder)
        row["input"]["sha256"] = content
        row["commit"] = secrets.token_hex(8)
        record = ledger.commit(task.id, folder, {"key": key, "row": row}, overwrite=job.overwrite)
    return Row(record["row"])


def _written(
    task: Task,
    job: BatchJob,
    target: Path,
    *,
    restorer: Restorer,
    progress: Progress | None,
    begin: Begin | None = None,
) -> Row:
    """Restore or thin an image and write it to ``target``, which stands for its place; what there is to tell."""
    started = time.perf_counter()
    volume, given = task.entry.load(), {"keep_private": job.keep_private}
    if begin is not None:
        begin(task.entry.name, volume.slices_shape[0])
    if isinstance(job.options, Thinning):
        advance = _parts(work_units(volume, job.options), progress)
        done = thin_to(volume, target, restorer, options=job.options, **given, progress=advance)
    else:
        advance = _parts(restorer.plan(volume.modality, job.options).work_units(volume), progress)
        done = restore_to(volume, target, restorer, options=job.options, **given, progress=advance)
    place, maps = job.output / task.target, [Path(path) for path in done["output"]["maps"]]
    output = {"files": done["output"]["files"], "maps": len(maps)}
    if job.identify:
        output |= {"path": str(place), "map_paths": [str(place.with_name(path.name)) for path in maps]}
    return done | {
        "status": "ok",
        "output": output,
        "seconds": round(time.perf_counter() - started, 3),
        "peak_mb": peak_mb(),
    }


def _parts(units: int, progress: Progress | None) -> Callable[[int], None] | None:
    if progress is None:
        return None

    def advance(count: int) -> None:
        progress(count / units)

    return advance


def _derivation(modality: Modality | None, job: BatchJob, restorer: Restorer) -> Derivation:
    if isinstance(job.options, Thinning):
        return thin_derivation(restorer, job.options)
    if modality is None:
        raise RefusedError("the file does not say what made it; say modality='CT' or modality='MR'")
    return restorer.plan(modality, job.options).derivation


def _arrange(task: Task, job: BatchJob, folder: Path) -> None:
    """Names and sidecars that the writers do not know of."""
    written = folder / task.target
    if job.flat and written.is_dir():
        from monai_sasm.io.dicom.header import quiet_read

        for path in sorted(written.iterdir()):
            header = quiet_read(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SOPInstanceUID"])
            path.rename(folder / f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm")
        written.rmdir()
    if _is_derivative(task):
        bids.complete_sidecar(written.with_name(stem(written) + ".json"), task.entry.paths[0], job.source)


def _is_derivative(task: Task) -> bool:
    """Whether the result has the name of a BIDS derivative."""
    return task.entry.format == "nifti" and bids.derived_name(task.entry.paths[0].name) == task.target.name


def _key(content: str, done: Derivation, *, task: Task, job: BatchJob) -> str:
    """What decides whether a result is still right: input, models, parameters, its place, of a series its kind of
    files, and of a BIDS derivative what is said of its source.
    """
    keep_maps = getattr(job.options, "keep_maps", False)
    layout = [job.flat, job.nifti] if task.entry.format == "dicom" else []
    told = [bids.told_of(task.entry.paths[0], job.source)] if _is_derivative(task) else []
    place = task.target.as_posix()
    decisive = [SCHEMA, content, done.digest, place, keep_maps, job.keep_private, *layout, *told]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
