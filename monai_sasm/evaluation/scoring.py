"""Run methods over cases, measure, and average into rows; peers' results are kept so that they are computed once."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache as cached
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.statistics import with_statistics
from monai_sasm.evaluation.table import Row
from monai_sasm.io.commit import replacing

Image = NDArray[np.float32]
Measure = Callable[["Case", Image], dict[str, float]]
Results = Mapping[tuple[str, str], dict[str, float]]
"""(level, case) -> metric -> value."""


@dataclass(frozen=True, eq=False)
class Case:
    """One degraded image with its truth.

    Args:
        name: unique within its level.
        level: strength of the degradation, as printed.
        clean: reference, ``(C, H, W)``, in the protocol's unit.
        degraded: same unit, and same shape unless the protocol is about size.
        sigma: noise standard deviation, same unit, as given to methods that want one.
        facts: further things a method or metric needs (spacing, masks).
        patient: whose image it is, where others are of the same one; they are alike, and drawn and tested together.
    """

    name: str
    level: str
    clean: Image
    degraded: Image
    sigma: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    patient: str = ""

    @property
    def group(self) -> str:
        """The patient; of an image that is the only one of its own, its name."""
        return self.patient or self.name


@dataclass(frozen=True)
class Method:
    """A way to restore a case.

    Args:
        name: as printed.
        restore: case -> image of the same shape and unit.
        settings: parameters and package version; the key of kept results. Empty: never kept (our own methods).
        first: run only on the first so many cases of each level; ``None`` for all.
        note: printed under the table.
    """

    name: str
    restore: Callable[[Case], Image]
    settings: str = ""
    first: int | None = None
    note: str = ""


class ResultCache:
    """Measured results of peers in one JSON file, keyed by input, settings, version and what the metrics make of it."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.results = self._stored()

    def get(self, key: str) -> dict[str, float] | None:
        """Scores (``seconds`` among them) of an earlier run, or None."""
        return self.results.get(key)

    def put(self, key: str, scores: dict[str, float]) -> None:
        """Keep the scores; written at once, because a peer may take minutes per image, and beside those that another
        process has written since.
        """
        self.results = {**self._stored(), **self.results, key: scores}
        if self.path is not None:
            with replacing(self.path) as file:
                file.write(json.dumps(dict(sorted(self.results.items())), indent=0).encode())

    def _stored(self) -> dict[str, dict[str, float]]:
        if self.path is None or not self.path.is_file():
            return {}
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{self.path} holds no results of peers ({error}); delete it, and they are measured again"
            ) from error


def score(
    protocol: str,
    cases: Sequence[Case],
    methods: Sequence[Method],
    *,
    measure: Measure,
    cache: ResultCache,
    subset_name: str = "subset",
    compared: Compared | None = None,
    gain: Gain | None = None,
) -> list[Row]:
    """Rows of all methods; where one ran on a subset, every method is also printed on that same subset.

    Args:
        protocol: part of the key of kept results.
        cases: all cases; the order within a level decides what a subset is.
        methods: in print order.
        measure: (case, restored) -> metric -> value.
        cache: results of earlier runs.
        subset_name: how subset rows are marked, as in ``"TV (BM3D subset)"``.
        compared: adds bootstrap intervals, and paired tests against one of the methods.
        gain: adds the gain over one of the methods, with its interval.
    """
    results: dict[str, Results]
    probed = cached(lambda case: fingerprint(rounded(measure(case, probe(case)))))
    results = {
        method.name: measured(protocol, cases, method, measure=measure, cache=cache, probed=probed)
        for method in methods
    }
    if gain is not None:
        results = with_gains(results, gain)
    rows = [
        average(method.name, cases, results[method.name], note=method.note)
        for method in methods
        if method.first is None
    ]
    if compared is not None:
        reference = results.get(compared.reference)
        rows = [compare(row, cases, results[row.method], reference=reference, compared=compared) for row in rows]
    if gain is not None:
        rows = [with_interval(row, cases, results[row.method], gain=gain) for row in rows]
    limits = [method.first for method in methods if method.first is not None]
    if limits:
        subset = _first(cases, min(limits))
        smaller = len(subset) < len(cases)
        chosen = methods if smaller else [method for method in methods if method.first is not None]
        suffix = f" ({subset_name})" if smaller else ""
        rows += [average(method.name + suffix, subset, results[method.name], note=method.note) for method in chosen]
    return rows


def average(name: str, cases: Sequence[Case], results: Results, note: str = "") -> Row:
    """Mean of each metric per level, median of the seconds."""
    scores: dict[str, dict[str, float]] = {}
    patients: dict[str, int] = {}
    seconds = []
    for level in dict.fromkeys(case.level for case in cases):
        members = [case for case in cases if case.level == level]
        found = [results[level, case.name] for case in members]
        if any(case.patient for case in members):
            patients[level] = len({case.group for case in members})
        seconds += [entry["seconds"] for entry in found]
        names = [metric for metric in found[0] if metric != "seconds"]
        scores[level] = {metric: _mean([entry[metric] for entry in found]) for metric in names}
    return Row(
        name,
        scores,
        n={level: sum(case.level == level for case in cases) for level in scores},
        seconds=statistics.median(seconds) if any(seconds) else None,
        note=note,
        patients=patients,
    )


@dataclass
class Tally:
    """Results of methods that depend on one another, case by case: method -> (level, case) -> metric -> value."""

    scores: dict[str, dict[tuple[str, str], dict[str, float]]] = field(default_factory=dict)

    def add(self, method: str, case: Case, scores: Mapping[str, float], *, seconds: float) -> None:
        """Note what a method came to on a case."""
        found, place = self.scores.setdefault(method, {}), (case.level, case.name)
        if place in found:
            raise ValueError(f"two cases are named {case.name} at {case.level!r}; one hides the other")
        found[place] = {**scores, "seconds": seconds}

    def rows(self, cases: Sequence[Case], gain: Gain | None = None) -> tuple[Row, ...]:
        """One row per method, in the order in which they were first added; ``gain`` as for :func:`score`."""
        if gain is None:
            return tuple(average(name, cases, found) for name, found in self.scores.items())
        results = with_gains(self.scores, gain)
        return tuple(
            with_interval(average(name, cases, found), cases, found, gain=gain) for name, found in results.items()
        )


@dataclass(frozen=True)
class Compared:
    """How rows are compared.

    Args:
        reference: name of the method that the others are tested against.
        metrics: which metrics get intervals and p values.
        label: of the reference, in the column's head.
    """

    reference: str
    metrics: tuple[str, ...]
    label: str = "U-Net"


@dataclass(frozen=True)
class Gain:
    """What a method gives over another one, case by case: what all cases differ in drops out.

    Args:
        metric: of which.
        before: the other one.
    """

    metric: str
    before: str = "input"

    @property
    def name(self) -> str:
        """As a column's head, ``PSNR gain``."""
        return f"{self.metric} gain"

    @property
    def definition(self) -> dict[str, str]:
        """Its name and what it is."""
        return {
            self.name: f"mean over images of {self.metric} less that of '{self.before}' on the same image; [low, high] "
            "is its 95 % bootstrap interval, drawing images, or patients with all their images where several are of one"
        }


def with_gains(results: Mapping[str, Results], gain: Gain) -> dict[str, Results]:
    """Results of methods with the gain of each case, but for the method over which it is."""
    before = results[gain.before]
    return {
        name: found
        if name == gain.before
        else {
            key: {**scores, gain.name: scores[gain.metric] - before[key][gain.metric]} for key, scores in found.items()
        }
        for name, found in results.items()
    }


def with_interval(row: Row, cases: Sequence[Case], results: Results, *, gain: Gain) -> Row:
    """``row`` with the bootstrap interval of its gain, of each level."""
    for level in row.scores:
        values, groups = values_of(cases, results, level), groups_of(cases, results, level)
        row = with_statistics(row, level, values, reference=None, metrics=(gain.name,), against="", groups=groups)
    return row


def compare(row: Row, cases: Sequence[Case], results: Results, *, reference: Results | None, compared: Compared) -> Row:
    """``row`` with bootstrap intervals of its means and the p values of paired tests against the reference."""
    for level in row.scores:
        own, other = values_of(cases, results, level), None
        if reference is not None and row.method != compared.reference:
            other = values_of(cases, reference, level)
        row = with_statistics(
            row,
            level,
            own,
            reference=other,
            metrics=compared.metrics,
            against=compared.label,
            groups=groups_of(cases, results, level),
        )
    return row


def values_of(cases: Sequence[Case], results: Results, level: str) -> dict[str, list[float]]:
    """Metric -> one value per case of a level, in the order of the cases; NaN where a case has none."""
    found = [results[level, case.name] for case in cases if case.level == level and (level, case.name) in results]
    return {metric: [entry.get(metric, math.nan) for entry in found] for metric in (found[0] if found else ())}


def groups_of(cases: Sequence[Case], results: Results, level: str) -> list[str]:
    """Whose image each value of :func:`values_of` is."""
    return [case.group for case in cases if case.level == level and (level, case.name) in results]


def degrade(model: Any, clean: Image, *, seed: int) -> tuple[Image, Any]:
    """A batch ``(B, C, H, W)`` degraded by a model of :mod:`monai_sasm.degradations`, and the parameters drawn."""
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(clean))
    params = model.draw(tuple(batch.shape), torch.Generator().manual_seed(seed))
    return model.apply(batch, params).numpy(), params


def fingerprint(*parts: Any) -> str:
    """Short hash of arrays, strings, and mappings of them."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_as_bytes(part))
    return digest.hexdigest()[:20]


def probe(case: Case) -> Image:
    """The degraded image blurred over 3 x 3 pixels: what is made of it tells whether a metric has changed since."""
    from scipy.ndimage import uniform_filter

    image = case.degraded if case.degraded.shape == case.clean.shape else case.clean
    return np.asarray(uniform_filter(image.astype(np.float32), (0, 3, 3)))


def rounded(scores: Mapping[str, float]) -> dict[str, str]:
    """Numbers as far as all machines agree on them."""
    return {name: f"{value:.4g}" for name, value in scores.items()}


def measured(
    protocol: str,
    cases: Sequence[Case],
    method: Method,
    *,
    measure: Measure,
    cache: ResultCache,
    probed: Callable[[Case], str] | None = None,
) -> dict[tuple[str, str], dict[str, float]]:
    """(level, case) -> metric -> value, ``seconds`` among them, of one method; arguments as for :func:`score`.

    A kept result holds for the same image, facts and settings, as long as ``measure`` makes the same of :func:`probe`,
    of which ``probed`` is the hash, where it is already known.
    """
    chosen = cases if method.first is None else _first(cases, method.first)
    twice = [place for place, count in Counter((case.level, case.name) for case in chosen).items() if count > 1]
    if twice:
        raise ValueError(f"two cases of {protocol} are named {twice[0][1]} at {twice[0][0]!r}; one hides the other")
    probed = probed or (lambda case: fingerprint(rounded(measure(case, probe(case)))))
    results = {}
    for case in chosen:
        found, key = None, ""
        if method.settings:
            parts = fingerprint(case.clean, case.degraded, case.sigma, case.facts, probed(case))
            key = f"{protocol}|{method.name}|{method.settings}|{case.level}|{case.name}|{parts}"
            found = cache.get(key)
        if found is None:
            start = time.perf_counter()
            restored = method.restore(case)
            seconds = time.perf_counter() - start
            untouched = restored is case.degraded or restored is case.clean
            found = {**measure(case, restored), "seconds": 0.0 if untouched else seconds}
            if method.settings:
                cache.put(key, found)
        results[case.level, case.name] = found
    return results


def _first(cases: Iterable[Case], count: int) -> list[Case]:
    by_level: dict[str, list[Case]] = {}
    for case in cases:
        by_level.setdefault(case.level, []).append(case)
    return [case for members in by_level.values() for case in members[:count]]


def _as_bytes(part: Any) -> bytes:
    if isinstance(part, np.ndarray):
        return repr((part.shape, part.dtype.str)).encode() + np.ascontiguousarray(part).tobytes()
    if isinstance(part, Mapping):
        return b"".join(repr(name).encode() + _as_bytes(part[name]) for name in sorted(part))
    return repr(part).encode()


def _mean(values: list[float]) -> float:
    finite = [value for value in values if value == value]  # NaN: a metric that does not exist for this image
    return float(np.mean(finite)) if finite else float("nan")
