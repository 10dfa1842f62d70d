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

from monai_sasm.cli_report import reason_of

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry
    from monai_sasm.restore import House, Options, Restored

SCHEMA = "sasm.restore/1"
NIFTI_SUFFIXES = (".nii.gz", ".nii")

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
    """

    source: Path
    output: Path
    overwrite: bool = False
    keep_private: bool = False
    bar: bool = False


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
    row["output"] = {"path": str(target)}
    if not job.overwrite and _is_there(target):
        return row | {"status": "skipped", "reason": "the result exists already; pass --overwrite or another output"}
    return row | {"status": "planned"}


def report(rows: Iterable[Row]) -> Iterator[Row]:
    """Log each row on its way."""
    for row in rows:
        _log(row)
        yield row


def run(job: Job, entries: Sequence[Entry], house: House, options: Options) -> Iterator[Row]:
    """Restore and write each image; yields its row as soon as it is done."""
    return report(_run(job, entries, house, options))


def _run(job: Job, entries: Sequence[Entry], house: House, options: Options) -> Iterator[Row]:
    for number, entry in enumerate(entries, 1):
        row = plan(job, entry)
        if row["status"] == "planned":
            row |= _unsuitable(entry, house, options) or _attempt(job, entry, row, house, options, number, len(entries))
        yield row


def _attempt(job: Job, entry: Entry, row: Row, house: House, options: Options, number: int, total: int) -> Row:
    """What became of one image; an error ends this image, never the job."""
    started = time.perf_counter()
    try:
        done = _restore_one(job, entry, Path(row["output"]["path"]), house, options, f"{number}/{total}")
    except FileExistsError as error:
        return {"status": "skipped", "reason": reason_of(error)}
    except Exception as error:  # one broken series must not stop a night's work
        logger.debug("traceback", exc_info=True)
        return {"status": "failed", "reason": reason_of(error), "error": type(error).__name__}
    return {"status": "ok", **done, "seconds": round(time.perf_counter() - started, 3), "peak_mb": _peak_mb()}


def _restore_one(job: Job, entry: Entry, target: Path, house: House, options: Options, label: str) -> Row:
    from monai_sasm import restore as room
    from monai_sasm.io.formats import write

    volume = entry.load()
    with _progress(room.work_units(volume, options), label, job.bar) as advance:
        restored = room.restore(volume, house, options, progress=advance)
    derivation = room.derivation(house, options)
    files = write(restored.volume, target, derivation, overwrite=job.overwrite, keep_private=job.keep_private)
    maps = write_maps(restored, target, job.overwrite) if options.keep_maps else []
    return {
        "output": {"path": str(target), "files": len(files), "maps": [str(path) for path in maps]},
        "models": dict(derivation.models),
        "parameters": dict(derivation.parameters),
        "summary": {key: value for key, value in restored.summary.items() if key != "seconds"},
        "device": str(house.device),
        "notes": list(restored.volume.notes),
    }


def write_maps(restored: Restored, target: Path, overwrite: bool = False) -> list[Path]:
    """Write ``<target>_weight-<class>`` of each class that acts, and ``<target>_change``, on the grid of the image.

    NIfTI for CT and MR, in the image's unit; PNG for photos, the change as change / 2 + 0.5.
    """
    from monai_sasm.io.formats import write_map
    from monai_sasm.types import Modality

    volume = restored.volume
    photo = volume.modality is Modality.PHOTO
    stem = next((target.name[: -len(end)] for end in NIFTI_SUFFIXES if target.name.endswith(end)), None)
    stem = stem or (target.stem if photo else target.name)
    maps = {
        f"weight-{name.replace(', ', '-').replace(' ', '')}": weight
        for name, weight in restored.weights.items()
        if weight.any()
    }
    if restored.change is not None:
        maps["change"] = (restored.change / 2 + 0.5).clip(0, 1) if photo else restored.change
    written = []
    for name, array in maps.items():
        if photo:
            path = target.with_name(f"{stem}_{name}.png")
            written += write_map(array[0], volume, path, overwrite=overwrite)
            continue
        path = target.with_name(f"{stem}_{name}.nii.gz")
        on_grid = volume.from_slices(array[:, None]).array  # (C, *spatial), C counts time points
        written += write_map(on_grid[0] if len(on_grid) == 1 else on_grid, volume, path, overwrite=overwrite)
    return written


def _unsuitable(entry: Entry, house: House, options: Options) -> Row | None:
    """A named expert passes over images of other modalities."""
    if options.expert is None or entry.modality is None:
        return None
    wanted = house.experts[options.expert].modality
    if wanted is entry.modality or wanted is None:
        return None
    reason = f"{options.expert} is for {wanted.value}, this image is {entry.modality.value}; leave --expert out"
    return {"status": "skipped", "reason": reason}


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
        logger.info("%s: restored in %.1f s", name, row["seconds"])
        for note in row["notes"]:
            logger.info("%s: %s", name, note)
    elif row["status"] == "failed":
        logger.error("%s: failed: %s", name, row["reason"])
    else:
        logger.warning("%s: skipped: %s", name, row["reason"])


def _peak_mb() -> int | None:
    """Largest memory of this process so far, MiB; ``None`` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    kilo = 1024 if sys.platform != "darwin" else 1024**2  # Linux counts KiB, macOS bytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kilo)


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
