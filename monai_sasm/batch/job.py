"""What a run of a batch is asked to do, as values that travel to workers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from monai_sasm import __version__
from monai_sasm.io.entry import Entry
from monai_sasm.restoration.options import Options


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share; small, and the same on every worker.

    Args:
        source: absolute path of the input.
        output: absolute path of the output folder.
        run: name of this run, different for each.
        options: what to do with the pixels.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, ...; chosen by each worker for itself.
        precision: ``float32`` or ``bfloat16``.
        trust: further folders of bundles.
        resume: take over what an earlier run did with the same input, models and parameters.
        overwrite: replace other results.
        keep_private: keep private DICOM tags.
        identify: write paths and UIDs into the rows, which may name patients.
        flat: put DICOM files straight into the output folder, as ``SERIES#OBJECT.dcm``.
        adopt: take over a ledger that was not made in its place; see :meth:`monai_sasm.batch.ledger.Ledger.open`.
    """

    source: Path
    output: Path
    options: Options
    run: str = field(default_factory=lambda: secrets.token_hex(6))
    device: str = "auto"
    precision: str = "float32"
    trust: tuple[Path, ...] = ()
    resume: bool = False
    overwrite: bool = False
    keep_private: bool = False
    identify: bool = False
    flat: bool = False
    adopt: bool = False
    version: str = __version__


@dataclass(frozen=True)
class Task:
    """One series to restore.

    Args:
        id: 16 hexadecimal digits that follow from its place below the input; free of patient data.
        entry: as found by :func:`monai_sasm.io.formats.inventory`.
        target: place of the result below the output.
    """

    id: str
    entry: Entry
    target: Path
