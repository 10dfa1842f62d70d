"""What holds for a batch over any input whatsoever; the tests of this folder differ in the input only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.batch.job import BatchJob
from monai_sasm.batch.ledger import FOLDER
from monai_sasm.batch.local import in_process
from monai_sasm.batch.manifest import NAME, read
from monai_sasm.batch.plan import plan
from monai_sasm.batch.row import Row
from monai_sasm.batch.run import Summary, run
from monai_sasm.io.formats import inventory
from monai_sasm.restoration.options import Options

PATIENT = ("SECRET", "Jane", "19700101")  # parts of what identifies the patient of all DICOM files here
UNTOLD = ("unforeseen", "not enough memory")  # an error nobody thought of; memory asked for without looking


def restored(source: Path, output: Path, trust: Path, **options: Any) -> list[Row]:
    """Restore a folder; the laws: inputs stay, nothing is lost, each has a result or a reason, nobody is named.

    Args:
        source: folder, whatever it holds.
        output: new folder.
        trust: see the fixture of that name.
        options: of :class:`monai_sasm.batch.job.BatchJob`.
    """
    before = contents(source)
    job = BatchJob(source, output, Options(), device="cpu", trust=(trust,), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # pydicom's and nibabel's quote the file: names, in the end
        planned = plan(job)
        summary = Summary(len(planned))
        rows = list(run(job, planned, in_process, summary))
    entries = [task.entry for task in planned]
    assert contents(source) == before, "an input was changed"
    assert set(before) <= {str(path.relative_to(source)) for entry in entries for path in entry.paths}, (
        "a file was lost"
    )
    assert len({row["input"]["id"] for row in rows}) == len(rows) == len(read(output / NAME)) == summary.planned
    assert summary.left == 0
    assert not any(word in json.dumps(rows) for word in PATIENT)
    for row in rows:
        assert row["status"] in ("ok", "skipped", "failed")
        assert row["status"] == "ok" or row["reason"], row
        assert not str(row["reason"]).startswith(UNTOLD), row
    check_results(output, sum(row["status"] == "ok" for row in rows))
    return rows


def check_results(output: Path, count: int) -> None:
    """As many images as were restored, each readable, and nothing half done beside them."""
    for left in ("staging", "ready", "starts"):
        assert not list((output / FOLDER / left).iterdir())
    assert not list(output.rglob("*.tmp"))
    shutil.rmtree(output / FOLDER)
    found = inventory(output, None) if count else []
    images = [entry for entry in found if entry.paths[0].suffix != ".json"]
    assert len(images) >= count
    for entry in images:
        if entry.refusal is not None and "modality=" not in entry.refusal:
            raise AssertionError(f"a result cannot be read: {entry.refusal}")
        if entry.refusal is None:
            assert np.isfinite(entry.load().array).all()


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of each file, those behind links included; of a link that leads nowhere, its goal."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            path.read_bytes() if path.is_file() else os.fsencode(os.readlink(path))
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if _is_file(path) or path.is_symlink()
    }


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a link to itself
        return False


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """Fail where the block hangs."""
    if sys.platform == "win32":
        yield
        return
    import signal

    def hung(*_: object) -> None:
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
