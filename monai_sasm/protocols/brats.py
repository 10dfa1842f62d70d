"""``brats``: brain tumours in MR made coarse and noisy, restored, and judged by a frozen segmenter; one row a subject.

Subjects may be spread over a cluster. Each outcome is a line of ``<output>/brats/manifest.jsonl``, on disk before the
next one counts; a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from monai_sasm.batch.ledger import Ledger
from monai_sasm.batch.lock import exclusive
from monai_sasm.batch.manifest import NAME, Manifest
from monai_sasm.batch.row import Row
from monai_sasm.bundles import available
from monai_sasm.datasets.brats import BratsSubject, subjects
from monai_sasm.errors import BundleError
from monai_sasm.evaluation.brats_report import table
from monai_sasm.evaluation.brats_subject import BratsJob, key_of, measure_subject
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import DataAbsentError
from monai_sasm.evaluation.named_experts import NamedExpert, find_experts
from monai_sasm.evaluation.table import Table
from monai_sasm.types import Modality

SEGMENTER, ZOO = "segment_brats_segresnet", "zoo"
EXPERTS = tuple(f"superres_mri_{kind}" for kind in ("unet", "esrgan", "dit", "sit"))

Engine = Callable[[Sequence[BratsSubject], BratsJob], Iterator[Row]]
"""Measures the subjects of a job, here or elsewhere, and yields their rows as they come."""

logger = logging.getLogger("monai_sasm")


def run(context: Context) -> Table:
    """The shipped experts on ``<data>/brats``, in this process; rows that are still right are taken over."""
    return measure(context, context.data / "brats", resume=True)


def measure(
    context: Context,
    root: Path,
    names: Sequence[str] = (),
    trust: Sequence[Path] = (),
    resume: bool = False,
    engine: Engine | None = None,
) -> Table:
    """Measure experts on all subjects below a folder.

    Args:
        context: ``output``, ``device`` and ``limit`` (of subjects) are used.
        root: BraTS of any year, see :mod:`monai_sasm.datasets.brats`; subjects without labels count for PSNR alone.
        names: experts, the reference first; by default those of :data:`EXPERTS` that are trained.
        trust: further folders of bundles.
        resume: take over rows of earlier runs with the same files, models and parameters; a subject whose picture is
            missing is measured again.
        engine: where to run; this process by default.

    Raises:
        DataAbsentError: no subject there.
        BundleError: an expert or the judge is missing.
        LockedError: another run writes there.
    """
    try:
        found = subjects(root)[: context.limit]
    except FileNotFoundError as error:
        raise DataAbsentError(str(error)) from None
    experts = find_experts(names, trust) if names else _trained()
    if experts[0].modality is not Modality.MR:
        raise BundleError(f"BraTS is MR, and {experts[0].label} is for {experts[0].modality.value}; name MR experts")
    overlay, modalities, models = _judge(experts)
    shown = next((subject for subject in found if subject.label is not None), found[0])
    job = BratsJob(
        folder=(context.shared / "brats").resolve(),
        figures=context.output.resolve(),
        experts=tuple(experts),
        segmenter=SEGMENTER,
        overlay=overlay,
        modalities=modalities,
        models=models,
        device=context.device,
        picture=shown.id,
    )
    rows = list(_rows(found, job, resume=resume, engine=engine or in_process))
    labels = {one.label for one in experts}
    return table(
        context,
        job,
        subjects=found,
        records=rows,
        left_out=[] if names else [name for name in EXPERTS if name not in labels],
    )


def in_process(found: Sequence[BratsSubject], job: BratsJob) -> Iterator[Row]:
    """One subject after the other."""
    return (measure_subject(subject, job) for subject in found)


def _rows(found: Sequence[BratsSubject], job: BratsJob, *, resume: bool, engine: Engine) -> Iterator[Row]:
    ledger = Ledger(job.folder)
    ledger.open()
    with exclusive(job.folder, ledger.folder / "lock"), closing(Manifest(job.folder / NAME)) as manifest:
        before = [row for one in found if resume and (row := _still_right(one, job, manifest)) is not None]
        done = {row["input"]["id"] for row in before}
        waiting = [subject for subject in found if subject.id not in done]
        logger.info("%d subjects measured before, %d to measure", len(before), len(waiting))
        for number, row in enumerate(chain(before, engine(waiting, job) if waiting else ()), 1):
            if row["run"] == job.run:
                manifest.append(row)
                _tell(row, f"{number}/{len(found)}")
            yield row


def _still_right(subject: BratsSubject, job: BratsJob, manifest: Manifest) -> Row | None:
    row = manifest.latest(subject.id)
    if row is None or row["status"] != "ok" or row["key"] != key_of(subject, job):
        return None
    drawn = subject.id != job.picture or all(path.is_file() for path in job.pictures)
    return row if drawn else None


def _tell(row: Row, place: str) -> None:
    if row["status"] == "ok":
        logger.info("%s %s: measured in %.0f s", place, row["input"]["name"], row["seconds"])
    else:
        logger.warning("%s %s: %s: %s", place, row["input"]["name"], row["status"], row["reason"])


def _trained() -> list[NamedExpert]:
    found = []
    for name in EXPERTS:
        try:
            found += find_experts([name])
        except BundleError as error:
            logger.info("%s left out: %s", name, error)
    if not found:
        raise BundleError(f"none of {', '.join(EXPERTS)} has weights; name others: bundles=['NAME']")
    return found


def _judge(experts: Sequence[NamedExpert]) -> tuple[str | None, tuple[str, ...], str]:
    """Variant and modalities of the judge (the model zoo's, where its weights are), and a hash of all models."""
    from monai.bundle import ConfigParser

    found = available()
    if SEGMENTER not in found:
        raise BundleError(f"no judge: there is no bundle {SEGMENTER}")
    own = NamedExpert(SEGMENTER, found[SEGMENTER])
    zoo = NamedExpert(SEGMENTER, found[SEGMENTER], ZOO)
    chosen = zoo if zoo.weights.is_file() else own
    if not chosen.weights.is_file():
        raise BundleError(f"no judge: {chosen.weights} is missing")
    parser = ConfigParser()
    names = ("inference", chosen.overlay) if chosen.overlay else ("inference",)
    parser.read_config([str(chosen.root / "configs" / f"{name}.yaml") for name in names])
    modalities = tuple(parser.get("modalities"))
    prints = "".join(one.fingerprint() for one in (*experts, chosen))
    return chosen.overlay, modalities, hashlib.sha256(prints.encode()).hexdigest()
