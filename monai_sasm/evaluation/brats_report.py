"""The table and figures of ``brats``: means over subjects with intervals, tests, and who made which subject worse."""

from __future__ import annotations

import hashlib
import math
import statistics as basic
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.batch.row import Row as Record
from monai_sasm.datasets.brats import BratsSubject
from monai_sasm.evaluation import figures
from monai_sasm.evaluation.brats_subject import CLEAN, INPUT, REGIONS, BratsJob, Measured
from monai_sasm.evaluation.comparison import harm_flags
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.judged_figures import COLOURS, ERROR, outline, psnr_against_dice, quality_against_time
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.statistics import losses, recovered_fraction, recovered_interval, with_statistics
from monai_sasm.evaluation.table import Row, Table

PROTOCOL = "brats"
COMPARED = ("PSNR", "SSIM", "VGG19-n", "LPIPS", "Dice")
HARMED = 5  # subjects named per expert
TRAINED_ON = ("brats_2013_pat0001_1", "brats_2013_pat0003_1")  # by the shipped judge
DEFINITIONS = {
    "PSNR": "dB, brain of all modalities, range 1 = 99.5th percentile of the foreground of the clean modality",
    "SSIM": "same range, Gaussian 11x11, sigma 1.5, windows centred in the brain, mean over slices and modalities",
    "Dice": "of the judge against labels drawn by people, mean over whole tumour (WT), tumour core (TC) and enhancing "
    "tumour (ET); the row 'clean' is what a perfect restoration would reach, 'input' what all start from",
    "HD95": "mm, 95 % Hausdorff distance of the same regions; a region that only one of the two has counts the "
    "diagonal of the image",
    "recovered": "(Dice restored - Dice input) / (Dice clean - Dice input), of means over subjects",
    "worse": "number of subjects whose Dice fell below that of the input: invented or erased structure; 'loss' is the "
    "mean fall among them, 'largest loss' the worst",
    "M params": "millions of trained weights",
    "s/image": "median seconds per slice of one modality",
}


def table(
    context: Context,
    job: BratsJob,
    *,
    subjects: Sequence[BratsSubject],
    records: Sequence[Record],
    left_out: Sequence[str] = (),
) -> Table:
    """What a run came to.

    Args:
        context: ``output`` and ``limit``.
        job: as run.
        subjects: all of them.
        records: of all subjects, from this run or an earlier one.
        left_out: shipped experts that have no weights.
    """
    measured = sorted((one for one in records if one["status"] == "ok"), key=lambda one: str(one["input"]["name"]))
    if not measured:
        reasons = "; ".join(f"{one['input']['name']}: {one['reason']}" for one in records)
        return Table(PROTOCOL, skipped=f"no subject could be measured: {reasons}")
    rows = [_row(method, measured, job) for method in (CLEAN, INPUT, *(one.label for one in job.experts))]
    harmed = harm(measured, [one.label for one in job.experts])
    labelled = sum(one["input"]["labels"] for one in measured)
    flags = (
        *context.limited(),
        f"k-space cut to its central {' or '.join(f'1/{factor}' for factor in job.factors)} along both axes of a "
        f"slice, complex noise of {job.sigma:g} "
        "(monai_sasm.degradations.kspace.LowQualityMr) on each modality, seed from the subject's name; images cropped "
        "to the brain before, skull-stripped again after",
        f"{len(measured)} of {len(subjects)} subjects measured, {labelled} with labels; the others count for PSNR, "
        "SSIM and features alone",
        *(f"{one['input']['name']} {one['status']}: {one['reason']}" for one in records if one["status"] != "ok"),
        *([f"{', '.join(left_out)} left out: no trained weights"] if left_out else []),
        *_about_judge(job, measured),
        *harm_flags(rows, job.experts, [name for name, one in measured[0]["networks"].items() if one["samples"]]),
        *_in_words(harmed),
    )
    used = hashlib.sha256("".join(one["key"] for one in measured).encode()).hexdigest()
    definitions = DEFINITIONS | {
        f"p (against {job.experts[0].label})": "two-sided Wilcoxon signed-rank test over subjects; [low, high] are 95 "
        "% bootstrap intervals of the mean over subjects (percentiles of 2000 resamples)"
    }
    definitions |= PerceptualDistances().definitions()
    details = {"subjects": [{"name": one["input"]["name"], **one["scores"]} for one in measured], "worse": harmed}
    return Table(
        PROTOCOL,
        used,
        definitions,
        rows=tuple(rows),
        flags=flags,
        figures=_figures(context, job, rows, labelled=labelled),
        details=details,
    )


def harm(measured: Sequence[Record], experts: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Level -> expert -> subject -> change of Dice against the input, for subjects it made worse; the worst first."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for level in measured[0]["scores"]:
        found[level] = {}
        for name in experts:
            own, before = (_values(measured, level, method, metric="Dice") for method in (name, INPUT))
            changes = zip(
                np.subtract(own, before).tolist(), (str(one["input"]["name"]) for one in measured), strict=True
            )
            found[level][name] = {subject: change for change, subject in sorted(changes) if change < 0}
    return found


def picture(path: Path, name: str, measured: Measured) -> None:
    """Each version's slice through the tumour (last modality), its error, and the judge's outlines (people's: white).

    Args:
        path: PNG to write.
        name: of the subject.
        measured: its versions.
    """
    scene, index = measured.scene, measured.tumour_slice()
    plot, places = figures.lines_of_panels(len(measured.images), rows=3 if scene.truth else 2)
    clean = scene.clean[-1, ..., index]
    for axes, (method, image) in zip(places, measured.images.items(), strict=True):
        shown = image[-1, ..., index]
        value = psnr(scene.clean[:, scene.brain], image[:, scene.brain], 1.0)
        title = name if math.isinf(value) else f"{method}\n{value:.2f} dB"
        figures.show(axes[0], _upright(shown)[None], (0.0, 1.0))
        figures.label(axes[0], title)
        axes[1].imshow(_upright(np.abs(shown - clean)), cmap="inferno", vmin=0, vmax=ERROR)
        if scene.truth:
            figures.show(axes[2], _upright(shown)[None], (0.0, 1.0))
            for colour, region in zip(COLOURS, REGIONS, strict=True):
                outline(axes[2], _upright(scene.truth[region][..., index]), colour="white", width=0.6)
                outline(axes[2], _upright(measured.regions[method][region][..., index]), colour=colour, width=1.0)
    figures.save(plot, path)


def _row(method: str, measured: Sequence[Record], job: BratsJob) -> Row:
    levels = list(measured[0]["scores"])
    first = job.experts[0].label
    row = Row(method, {}, dict.fromkeys(levels, len(measured)), seconds=_seconds(measured, method))
    for level in levels:
        metrics = list(dict.fromkeys(metric for one in measured for metric in one["scores"][level][INPUT]))
        values = {metric: _values(measured, level, method, metric=metric) for metric in metrics}
        row = replace(row, scores={**row.scores, level: {metric: _mean(found) for metric, found in values.items()}})
        reference = None
        if method not in (CLEAN, INPUT, first):
            reference = {metric: _values(measured, level, first, metric=metric) for metric in metrics}
        row = with_statistics(row, level, values, reference=reference, metrics=COMPARED, against=f"against {first}")
        if method not in (CLEAN, INPUT):
            row = _judged(row, level, measured)
    return row


def _judged(row: Row, level: str, measured: Sequence[Record]) -> Row:
    """``row`` with what follows from the Dice of labelled subjects, and its number of weights."""
    scores, intervals = dict(row.scores[level]), dict(row.intervals[level])
    labelled = [one for one in measured if one["input"]["labels"]]
    if labelled:
        own, low, high = (_values(labelled, level, name, metric="Dice") for name in (row.method, INPUT, CLEAN))
        scores["recovered"] = recovered_fraction(own, low, high)
        intervals["recovered"] = recovered_interval(own, low, high)
        scores |= losses(own, low)
    scores["M params"] = measured[0]["networks"][row.method]["weights"] / 1e6
    return replace(row, scores={**row.scores, level: scores}, intervals={**row.intervals, level: intervals})


def _seconds(measured: Sequence[Record], method: str) -> float | None:
    found = [
        level[method]["seconds"] for one in measured for level in one["scores"].values() if "seconds" in level[method]
    ]
    return basic.median(found) if found else None


def _about_judge(job: BratsJob, measured: Sequence[Record]) -> list[str]:
    if job.overlay is not None:
        return [
            f"judge: {job.segmenter} with the weights of the model zoo, trained on BraTS 2018: its subjects are no test"
        ]
    seen = [one["input"]["name"] for one in measured if one["input"]["name"] in TRAINED_ON]
    about = f"judge: {job.segmenter}, trained on two clean subjects: it ranks restorations, and is no tumour segmenter"
    return [about, *([f"**the judge was trained on {', '.join(seen)}**"] if seen else [])]


def _in_words(harmed: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    for level, experts in harmed.items():
        for name, subjects in experts.items():
            listed = ", ".join(f"{subject} {change:+.4f}" for subject, change in list(subjects.items())[:HARMED])
            more = f" and {len(subjects) - HARMED} more" if len(subjects) > HARMED else ""
            yield f"Dice made worse by {name} at {level}: {listed + more if subjects else 'none'}"


def _figures(context: Context, job: BratsJob, rows: Sequence[Row], labelled: int) -> tuple[str, ...]:
    names = [path.name for path in job.pictures if path.is_file()]
    if labelled:
        names.append(psnr_against_dice(context.output / f"{PROTOCOL}-dice.png", rows))
    metrics = ("PSNR", "Dice") if labelled else ("PSNR",)
    return (*names, quality_against_time(context.output / f"{PROTOCOL}-time.png", rows, metrics=metrics, before=INPUT))


def _values(measured: Sequence[Record], level: str, method: str, metric: str) -> list[float]:
    return [float(one["scores"][level][method].get(metric, math.nan)) for one in measured]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _upright(image: Any) -> Any:
    """Anterior at the top, as BraTS lies (first axis left, second posterior)."""
    return image.T
