"""What a run is asked to do, and its parts, as values that travel to workers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from monai_sasm import __version__

if TYPE_CHECKING:
    from monai_sasm.io.entry import Entry
    from monai_sasm.restoration.options import Options, Thinning
    from monai_sasm.types import Modality


@dataclass(frozen=True)
class BatchJob:
    """What all tasks of a run share; small, and the same on every worker.

    Args:
        source: file or folder of images; absolute where workers run elsewhere.
        output: folder of the results, or a file name for one NIfTI or photo.
        options: what to do with the pixels: restore them, or make thin slices of them.
        command: that runs it, as the rows tell.
        run: name of this run, different for each.
        modality: what NIfTI files are that do not say it.
        force_modality: restore also what seems to be no image; see :func:`monai_sasm.io.formats.inventory`.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``, ...; chosen by each worker for itself.
        precision: ``auto``, ``float32`` or ``bfloat16``.
        trust: further folders of bundles.
        ledger: the output is an archive with a ledger and a manifest: a run can be resumed, NIfTI results carry the
            names of BIDS derivatives, and what lies in the output is no input.
        resume: take over what an earlier run did with the same input, models and parameters; what it did otherwise is
            made anew, unless somebody has changed it since.
        overwrite: replace other results.
        keep_private: keep private DICOM tags.
        identify: write names, paths and UIDs into the rows, which may name patients.
        describe: with ``identify``, also the descriptions of DICOM series.
        flat: put DICOM files straight into the output folder, as ``SERIES#OBJECT.dcm``.
        nifti: write DICOM results as NIfTI.
        again: take results of this program, too, for work that is no restoration.
        version: of the package that planned it.
        adopt: take over a ledger that was not made in its place; see :meth:`monai_sasm.batch.ledger.Ledger.open`.
        further: more files and folders of images, of a job without a ledger.
    """

    source: Path
    output: Path
    options: Options | Thinning
    command: str = "batch"
    run: str = field(default_factory=lambda: secrets.token_hex(6))
    modality: Modality | None = None
    force_modality: bool = False
    device: str = "auto"
    precision: str = "auto"
    trust: tuple[Path, ...] = ()
    ledger: bool = True
    resume: bool = False
    overwrite: bool = False
    keep_private: bool = False
    identify: bool = False
    describe: bool = False
    flat: bool = False
    nifti: bool = False
    again: bool = False
    adopt: bool = False
    further: tuple[Path, ...] = ()
    version: str = __version__

    @property
    def sources(self) -> tuple[Path, ...]:
        """All files and folders of images."""
        return (self.source, *self.further)

    def root_of(self, entry: Entry) -> Path:
        """The one of them in which an entry was found."""
        return next((root for root in self.sources if entry.paths[0].is_relative_to(root)), self.source)


@dataclass(frozen=True)
class Task:
    """One image, volume or series.

    Args:
        id: 16 hexadecimal digits that follow from its place below the input; free of patient data.
        entry: as found by :func:`monai_sasm.io.formats.inventory`.
        target: place of the result below the output of the job; ``.`` where that is the file itself.
        refusal: why it will not be restored; ``None`` when it will be.
        error: name of the error, where the refusal is a failure; ``None`` where it is rightly passed over.
    """

    id: str
    entry: Entry
    target: Path
    refusal: str | None = None
    error: str | None = None
