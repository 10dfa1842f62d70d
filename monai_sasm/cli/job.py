"""One restoration job: what is in a path, image by image, each ending in one row: ok, skipped or failed, and why."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sasm.errors import reason_of

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry
    from monai_sasm.restoration.options import Options
    from monai_sasm.restoration.restorer import Restorer
    from monai_sasm.restoration.thin import Thinning

SCHEMA = "sasm.restore/1"

logger = logging.getLogger("monai_sasm")
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """Where images come from, where results go, and what may happen on the way.

    Args:
        source: file or folder to restore.
        output: folder, or a file name for one NIfTI or photo.
        overwrite: replace existing results.
        keep_private: keep private DICOM tags.
        bar: show a progress bar on stderr.
        nifti: write DICOM results as NIfTI.
    """

    source: Path
    output: Path
    overwrite: bool = False
    keep_private: bool = False
    bar: bool = False
    nifti: bool = False


def plan(job: Job, entry: Entry) -> Row:
    """The row of an image before anything is done: ``planned``, or ``skipped`` with the reason."""
    from monai_sasm.io.formats import output_path

    row = _row(job, entry)
    if entry.refusal is not None:
        return row | {"status": "skipped", "reason": entry.refusal}
    try:
        target = output_path(entry, job.source, job.output)
    except ValueError as error:
        return row | {"status": "skipped", "reason": reason_of(error)}
    if job.nifti and entry.format == "dicom" and not target.name.endswith(".nii.gz"):
        target = target.with_name(f"{target.name}.nii.gz")
    row["output"] = {"path": str(target)}
    if not job.overwrite and _is_there(target):
        return row | {"status": "skipped", "reason": "the result exists already; pass --overwrite or another output"}
    return row | {"status": "planned"}


def report(rows: Iterable[Row]) -> Iterator[Row]:
    """Log each row on its way."""
    for row in rows:
        _log(row)
        yield row


def run(job: Job, entries: Sequence[Entry], restorer: Restorer, options: Options | Thinning) -> Iterator[Row]:
    """Restore, or thin, and write each image; yields its row as soon as it is done."""
    return report(_run(job, entries, restorer, options))


def _run(job: Job, entries: Sequence[Entry], restorer: Restorer, options: Options | Thinning) -> Iterator[Row]:
    for number, entry in enumerate(entries, 1):
        row = plan(job, entry)
        if row["status"] == "planned":
            row |= _unsuitable(entry, restorer, options) or _attempt(
                job, entry, row, restorer, options, number, len(entries)
            )
        yield row


def _attempt(
    job: Job, entry: Entry, row: Row, restorer: Restorer, options: Options | Thinning, number: int, total: int
) -> Row:
    """What became of one image; an error ends this image, never the job."""
    from monai_sasm.restoration.files import peak_mb

    started = time.perf_counter()
    try:
        done = _restore_one(job, entry, Path(row["output"]["path"]), restorer, options, f"{number}/{total}")
    except FileExistsError as error:
        return {"status": "skipped", "reason": reason_of(error)}
    except Exception as error:  # one broken series must not stop a night's work
        logger.debug("traceback", exc_info=True)
        return {"status": "failed", "reason": reason_of(error), "error": type(error).__name__}
    return {"status": "ok", **done, "seconds": round(time.perf_counter() - started, 3), "peak_mb": peak_mb()}


def _restore_one(
    job: Job, entry: Entry, target: Path, restorer: Restorer, options: Options | Thinning, label: str
) -> Row:
    from monai_sasm.restoration import files
    from monai_sasm.restoration.options import Thinning
    from monai_sasm.restoration.thin import work_units

    volume = entry.load()
    permitted = {"overwrite": job.overwrite, "keep_private": job.keep_private}
    if isinstance(options, Thinning):
        with _progress(work_units(volume, options), label, job.bar) as advance:
            return files.thin_to(volume, target, restorer, options, **permitted, progress=advance)
    with _progress(restorer.plan(volume.modality, options).work_units(volume), label, job.bar) as advance:
        return files.restore_to(volume, target, restorer, options, **permitted, progress=advance)


def _unsuitable(entry: Entry, restorer: Restorer, options: Options | Thinning) -> Row | None:
    from monai_sasm.restoration.files import mismatch

    reason = mismatch(entry, restorer, options)
    return None if reason is None else {"status": "skipped", "reason": reason}


def _row(job: Job, entry: Entry) -> Row:
    return {
        "schema": SCHEMA,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "status": None,
        "reason": None,
        "input": {
            "name": entry.name,
            "path": str(_place(entry)),
            "files": len(entry.paths),
            "format": entry.format,
            "modality": entry.modality.value if entry.modality else None,
            "geometry": entry.geometry,
        },
        "output": None,
        "notes": list(entry.notes),
    }


def _place(entry: Entry) -> Path:
    """The file, or the folder that holds the files."""
    return entry.paths[0] if len(entry.paths) == 1 else entry.paths[0].parent


def _is_there(target: Path) -> bool:
    return any(target.iterdir()) if target.is_dir() else target.exists()


def _log(row: Row) -> None:
    name = row["input"]["name"]
    if row["status"] == "ok":
        logger.info("%s: done in %.1f s", name, row["seconds"])
        for note in row["notes"]:
            logger.info("%s: %s", name, note)
    elif row["status"] == "failed":
        logger.error("%s: failed: %s", name, row["reason"])
    else:
        logger.warning("%s: skipped: %s", name, row["reason"])


@contextmanager
def _progress(total: int, label: str, shown: bool) -> Iterator[Any]:
    """A bar on stderr that counts slices and tiles, through which messages still pass."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    bar = tqdm(total=total, desc=label, unit="tile", file=sys.stderr, disable=not shown, leave=False)
    if not shown:
        yield bar.update
        return
    with logging_redirect_tqdm([logger]), bar:
        yield bar.update
