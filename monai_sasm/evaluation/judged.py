"""Rows of protocols with a judge: means with intervals, recovered fraction, losses, and who must be flagged."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from monai_sasm.evaluation.contenders import NAMES
from monai_sasm.evaluation.scoring import (
    Case,
    Compared,
    Gain,
    Results,
    average,
    compare,
    values_of,
    with_gains,
    with_interval,
)
from monai_sasm.evaluation.statistics import losses, recovered_fraction, recovered_interval
from monai_sasm.evaluation.table import Row

CLEAN, DEGRADED = "clean", "zero-filled"
REFERENCE = NAMES["unet"]
COMPARED = ("PSNR", "SSIM", "VGG19-n", "LPIPS", "Dice")
JUDGED = {
    "Dice": "of the judge on the restored image against labels drawn by people, mean over regions; the row 'clean' is "
    "what a perfect restoration would reach, the row 'zero-filled' what all start from",
    "HD95": "mm, 95 % Hausdorff distance of the same regions",
    "recovered": "(Dice restored - Dice zero-filled) / (Dice clean - Dice zero-filled), of means over subjects",
    "worse": "number of subjects whose Dice fell below that of the zero-filled image: invented or erased structure",
    "loss": "mean fall of Dice among those subjects; 'largest loss' is the worst of them",
    f"p (against {REFERENCE})": "two-sided Wilcoxon signed-rank test over subjects; [low, high] are 95 % "
    "bootstrap intervals of the mean over subjects (percentiles of 2000 resamples)",
}


def judged_rows(
    cases: Sequence[Case],
    results: Mapping[str, Results],
    *,
    seconds: Mapping[str, Sequence[float]],
    parameters: Mapping[str, int],
    gain: Gain,
) -> tuple[Row, ...]:
    """One row per method.

    Args:
        cases: all, of all levels.
        results: method -> (level, case) -> metric -> value with ``Dice``; :data:`CLEAN` and :data:`DEGRADED` too.
        seconds: method -> seconds per slice, one per case.
        parameters: method -> number of weights.
        gain: as for :func:`monai_sasm.evaluation.scoring.score`.
    """
    results = with_gains(results, gain)
    compared = Compared(REFERENCE, COMPARED, f"against {REFERENCE}")
    rows = []
    for name, found in results.items():
        row = average(name, cases, found)
        plain = name in (CLEAN, DEGRADED)
        row = replace(row, seconds=None if plain else statistics.median(seconds[name]))
        reference = None if plain else results.get(REFERENCE)
        row = compare(row, cases, found, reference=reference, compared=compared)
        row = with_interval(row, cases, found, gain=gain)
        for level in row.scores:
            row = _judged(row, level, cases, results=results, count=parameters.get(name))
        rows.append(row)
    return tuple(rows)


def hallucinating(rows: Sequence[Row], sampled: Sequence[str], reference: str = REFERENCE) -> tuple[str, ...]:
    """A flag for every diffusion method whose PSNR is below the U-Net's: what it adds is not what was there.

    Args:
        rows: with ``PSNR`` at every level.
        sampled: names of the diffusion methods.
        reference: name of the U-Net's row.
    """
    by_name = {row.method: row for row in rows}
    if reference not in by_name:
        return ()
    flags = []
    for name in sampled:
        for level, scores in by_name[name].scores.items():
            short = by_name[reference].scores[level]["PSNR"] - scores["PSNR"]
            if short > 0:
                place = f" at {level}" if level else ""
                flags.append(f"**{name} is {short:.2f} dB below the {REFERENCE}{place}**")
    return tuple(flags)


def _judged(row: Row, level: str, cases: Sequence[Case], *, results: Mapping[str, Results], count: int | None) -> Row:
    """``row`` with what follows from the Dice on clean and degraded images."""
    own, high, low = (
        values_of(cases, part, level)["Dice"] for part in (results[row.method], results[CLEAN], results[DEGRADED])
    )
    scores, intervals = dict(row.scores[level]), dict(row.intervals.get(level, {}))
    if row.method not in (CLEAN, DEGRADED):
        scores["recovered"] = recovered_fraction(own, low, high)
        intervals["recovered"] = recovered_interval(own, low, high)
        scores |= losses(own, low)
    if count is not None:
        scores["M params"] = count / 1e6
    return replace(row, scores={**row.scores, level: scores}, intervals={**row.intervals, level: intervals})
