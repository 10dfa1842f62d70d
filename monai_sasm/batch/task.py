"""One task, one series: what a batch does with it, the same in this process and on every worker of a cluster."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from monai_sasm import __version__
from monai_sasm.batch import bids
from monai_sasm.batch.job import Job, Task
from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.manifest import Row
from monai_sasm.batch.rows import describe, kind_of, reason_without_names
from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.entry import Entry
from monai_sasm.io.nifti.names import stem
from monai_sasm.restoration.files import mismatch, open_restorer, peak_mb, restore_to
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality

MAX_DEATHS = 3  # of its process, after which a task is given up
PUT_OFF = "put off"  # status of a task that lost its process before, until the others are done
_CHUNK = 1 << 22

logger = logging.getLogger("monai_sasm")


def run_task(task: Task, job: Job, progress: Callable[[float], None] | None = None, *, last: bool = False) -> Row:
    """Restore one series, commit the result, and say what became of it. Runs any number of times with one effect.

    Args:
        task: the series.
        job: see :class:`Job`.
        progress: called with the part of the series that was done since the last call; the parts add up to 1.
        last: the other tasks are done. Before that, one whose process ended while at work on it is put off: should it
            be the cause, it costs the others nothing, and should it not, it is not hit again and again.

    Returns:
        The row for the manifest: ``ok``, ``skipped`` or ``failed``; or a row with the status :data:`PUT_OFF`. An error
        ends this series, never the batch.
    """
    ledger = Ledger(job.output)
    started = time.perf_counter()
    row = describe(task, job)
    if ledger.deaths(task.id) and not last:
        return row | {"status": PUT_OFF}
    try:
        ledger.settle(task.id)
        restorer = _restorer_here(job)  # before the start counts: a process that ends while it loads speaks for no task
        if ledger.start(task.id) > MAX_DEATHS:
            reason = f"its process ended {MAX_DEATHS} times while at work on it: a crash, too little memory or time"
            return row | {"status": "failed", "reason": reason, "error": "ProcessDied"}
        return _attempt(task, job, restorer, row, ledger, started, progress)
    except FileExistsError as error:
        return row | {"status": "skipped", "reason": reason_without_names(error, task, job)}
    except Exception as error:  # one broken series must not stop a night's work
        logger.debug("traceback", exc_info=True)
        return row | {"status": "failed", "reason": reason_without_names(error, task, job), "error": kind_of(error)}
    finally:
        ledger.end(task.id)


def restorer_of(job: Job) -> Restorer:
    """Gate and experts, loaded once per process.

    Raises:
        BundleError: a bundle is missing or incomplete.
    """
    return _restorer(job.device, job.precision, job.trust, job.options)


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


def _restorer_here(job: Job) -> Restorer:
    if job.version != __version__:
        raise RuntimeError(f"this worker has monai_sasm {__version__}, the batch runs {job.version}; install the same")
    return restorer_of(job)


def _attempt(
    task: Task,
    job: Job,
    restorer: Restorer,
    row: Row,
    ledger: Ledger,
    started: float,
    progress: Callable[[float], None] | None,
) -> Row:
    unsuitable = mismatch(task.entry, restorer, job.options)
    if unsuitable:
        return row | {"status": "skipped", "reason": unsuitable}
    earlier = ledger.record(task.id)
    if earlier is not None and earlier["row"]["run"] == job.run:
        return _row(earlier)  # the scheduler runs it again, for it lost a worker that had finished
    if not (job.resume or job.overwrite):
        _check_free(task, job, earlier)
    content = input_hash(task.entry)
    row["input"]["sha256"] = content
    plan = restorer.plan(_modality(task.entry), job.options)
    key = _key(content, plan.derivation, job)
    if earlier is not None and job.resume and earlier["key"] == key:
        return _row(earlier)
    if not job.overwrite:
        _check_free(task, job, earlier)
    volume = task.entry.load()
    units = plan.work_units(volume)
    with ledger.staging(job.run, task.id) as staged:
        done = restore_to(
            volume,
            staged / task.target,
            restorer,
            job.options,
            keep_private=job.keep_private,
            progress=(lambda count: progress(count / units)) if progress else None,
        )
        _arrange(task, job, staged)
        place = {"path": str(job.output / task.target)} if job.identify else {}
        row |= done | {
            "status": "ok",
            "output": place | {"files": done["output"]["files"], "maps": len(done["output"]["maps"])},
            "seconds": round(time.perf_counter() - started, 3),
            "peak_mb": peak_mb(),
            "commit": secrets.token_hex(8),
        }
        record = ledger.commit(task.id, staged, {"key": key, "row": row}, overwrite=job.overwrite)
    return _row(record)


def _modality(entry: Entry) -> Modality:
    if entry.modality is None:
        raise RefusedError("the file does not say what made it; pass --modality CT or --modality MR")
    return entry.modality


def _row(record: dict[str, Any]) -> Row:
    row: Row = record["row"]
    return row


def _check_free(task: Task, job: Job, earlier: dict[str, Any] | None) -> None:
    if earlier is not None and job.resume:
        raise FileExistsError(
            "the result there was made from another input, with other models or parameters; "
            "pass --overwrite to replace it"
        )
    if earlier is not None:
        raise FileExistsError("an earlier run has done it; pass --resume to go on after it, or --overwrite")
    if (job.output / task.target).exists():
        raise FileExistsError("something is in the place of the result already; pass --overwrite or another output")


def _arrange(task: Task, job: Job, staged: Path) -> None:
    """Names and sidecars that the writers do not know of."""
    written = staged / task.target
    if job.flat and written.is_dir():
        from pydicom import dcmread

        for path in sorted(written.iterdir()):
            header = dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SOPInstanceUID"])
            path.rename(staged / f"{header.SeriesInstanceUID}#{header.SOPInstanceUID}.dcm")
        written.rmdir()
    if task.entry.format == "nifti" and bids.derived_name(task.entry.paths[0].name) == task.target.name:
        bids.complete_sidecar(written.with_name(stem(written) + ".json"), task.entry.paths[0], job.source)


def _key(content: str, done: Derivation, job: Job) -> str:
    """What decides whether a result is still right: input, models and parameters."""
    decisive = [content, done.digest, job.options.keep_maps, job.keep_private]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()
