"""How sure a mean over subjects is, and whether a difference between two methods on the same subjects is chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monai_sasm.evaluation.table import FEW, Row

DRAWS = 2000
CONFIDENCE = 0.95
Interval = tuple[float, float]
Values = Mapping[str, Sequence[float]]
"""Metric -> one value per subject; the subjects in the same order for all methods."""


def bootstrap_interval(values: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Interval:
    """95 % percentile interval of the mean, by drawing subjects with replacement (Efron 1979).

    Args:
        values: one per subject; NaN and infinite ones do not count.
        draws: number of resamples.
        seed: of the draws: the same values give the same interval.

    Returns:
        Lower and upper limit; NaN for fewer than :data:`FEW` subjects.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if len(finite) < FEW:
        return float("nan"), float("nan")
    return _limits(finite[_resamples(len(finite), draws, seed)].mean(1))


def grouped_interval(groups: Sequence[Sequence[float]], draws: int = DRAWS, seed: int = 0) -> Interval:
    """As :func:`bootstrap_interval`, of the mean of all values, by drawing whole groups: values of one subject are
    alike. Groups without values do not count.
    """
    filled = [group for group in groups if len(group)]
    if len(filled) < FEW:
        return float("nan"), float("nan")
    sums, counts = (np.array([part(group) for group in filled], np.float64) for part in (np.sum, len))
    chosen = _resamples(len(filled), draws, seed)
    return _limits(sums[chosen].sum(1) / counts[chosen].sum(1))


@dataclass(frozen=True)
class Paired:
    """Two methods on the same subjects or images.

    Args:
        difference: mean of method minus reference.
        p: two-sided p value of Wilcoxon's signed-rank test (1945): the probability of ranks this uneven when the
            differences are symmetric about 0. 1 when all are 0; NaN for fewer than :data:`FEW` subjects.
    """

    difference: float
    p: float


def paired_test(values: ArrayLike, reference: ArrayLike, groups: Sequence[str] | None = None) -> Paired:
    """Compare a method with a reference, subject by subject.

    With n subjects p cannot fall below ``2 ** (1 - n)``: fewer than :data:`FEW` can never reach 0.05.

    Args:
        values: one per image.
        reference: likewise.
        groups: whose image each is: a subject counts once, by the mean of its differences. ``None``: one image each.

    Raises:
        ValueError: the numbers of subjects differ.
    """
    from scipy.stats import wilcoxon

    first, second = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a paired test needs the same subjects, got {first.shape} and {second.shape} values")
    with np.errstate(invalid="ignore"):  # infinite for both, where an image is its own reference
        members = by_group(first - second, groups)
    if not members:
        return Paired(float("nan"), float("nan"))
    difference = float(np.mean(np.concatenate(members)))
    if len(members) < FEW:
        return Paired(difference, float("nan"))
    each = np.array([np.mean(group) for group in members])
    return Paired(difference, 1.0 if not each.any() else float(wilcoxon(each).pvalue))


def by_group(values: ArrayLike, groups: Sequence[str] | None) -> list[list[float]]:
    """Finite values, a list for each subject that has some; ``groups`` says whose each is, ``None``: one each."""
    found: dict[str, list[float]] = {}
    array = np.asarray(values, np.float64)
    for group, value in zip(map(str, range(len(array))) if groups is None else groups, array.tolist(), strict=True):
        if np.isfinite(value):
            found.setdefault(group, []).append(value)
    return list(found.values())


def recovered_fraction(restored: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """How much of what a segmenter loses on degraded images a restoration gives back.

    ``(mean restored - mean low) / (mean high - mean low)`` of a score such as Dice, one per subject, on restored,
    degraded and clean images: 0 is no help, 1 as good as clean, below 0 harm. A ratio of means, because a single
    subject may lose nothing.

    Returns:
        NaN where the degradation costs nothing.
    """
    score, lowest, highest = (float(np.mean(np.asarray(part, np.float64))) for part in (restored, low, high))
    return (score - lowest) / (highest - lowest) if highest > lowest else float("nan")


def recovered_interval(
    restored: ArrayLike, low: ArrayLike, high: ArrayLike, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """95 % bootstrap interval of :func:`recovered_fraction`, the three scores of a subject drawn together."""
    score, lowest, highest = (np.asarray(part, np.float64) for part in (restored, low, high))
    if len(score) < FEW:
        return float("nan"), float("nan")
    chosen = _resamples(len(score), draws, seed)
    gained, lost = (part[chosen].mean(1) for part in (score - lowest, highest - lowest))
    return _limits(gained[lost > 0] / lost[lost > 0]) if (lost > 0).any() else (float("nan"), float("nan"))


def losses(restored: ArrayLike, before: ArrayLike) -> dict[str, float]:
    """Where a restoration made the score worse: what a method that invents structure cannot hide in a mean.

    Returns:
        ``worse`` number of subjects, ``loss`` mean and ``largest loss`` of the score among them, 0 where there is none;
        one that was perfect before and is not now has no finite loss, and is counted only.
    """
    with np.errstate(invalid="ignore"):  # an image that was perfect before and after has two infinite scores
        change = np.asarray(before, np.float64) - np.asarray(restored, np.float64)
    lost = change[(change > 0) & np.isfinite(change)]
    return {
        "worse": float((change > 0).sum()),
        "loss": float(lost.mean()) if len(lost) else 0.0,
        "largest loss": float(lost.max()) if len(lost) else 0.0,
    }


def conformal_bound(losses: ArrayLike, confidence: float = CONFIDENCE) -> float:
    """What the loss on one more image of the same kind stays below with the given probability, whatever its
    distribution: the ``ceil((n + 1) confidence)``-th smallest of n losses (Vovk, Gammerman and Shafer 2005).

    Returns:
        infinity where there are too few to say so: fewer than 19 for 95 %.
    """
    finite = np.sort(np.asarray(losses, np.float64)[np.isfinite(losses)])
    rank = int(np.ceil((len(finite) + 1) * confidence))
    return float(finite[rank - 1]) if 1 <= rank <= len(finite) else float("inf")


def with_statistics(
    row: Row,
    level: str,
    values: Values,
    *,
    reference: Values | None,
    metrics: Sequence[str],
    against: str,
    groups: Sequence[str] | None = None,
) -> Row:
    """Add bootstrap intervals to a row, and the p value of each metric against a reference.

    Args:
        row: with the means of ``level``.
        level: whose values these are.
        values: of the row's method.
        reference: of the method it is compared with; ``None`` for the reference's own row.
        metrics: which of them.
        against: the reference, as named in the column ``p METRIC (against)``.
        groups: whose image each value is: whole subjects are drawn and tested. ``None``: each is a subject's own.
    """
    present = [metric for metric in metrics if metric in values]
    intervals = {metric: grouped_interval(by_group(values[metric], groups)) for metric in present}
    tests = {
        f"p {metric} ({against})": paired_test(values[metric], reference[metric], groups).p
        for metric in present
        if reference is not None and len(reference.get(metric, ())) == len(values[metric])
    }
    scores = {**row.scores, level: {**row.scores[level], **tests}}
    kept = {**row.intervals.get(level, {}), **intervals}
    return replace(row, scores=scores, intervals={**row.intervals, level: kept})


def _resamples(count: int, draws: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(count, size=(draws, count))


def _limits(samples: NDArray[np.float64]) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
