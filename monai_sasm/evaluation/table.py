"""Table: what one protocol measured, as JSON and as a Markdown section."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

Scores = Mapping[str, Mapping[str, float]]
"""Level (noise strength, dose, kernel; ``""`` when there is only one) -> metric -> mean over the images."""
Limits = Mapping[str, Mapping[str, tuple[float, float]]]
"""Level -> metric -> lower and upper limit."""
FEW = 6
"""Patients below which there is no 95 % interval and no p: a signed-rank test of five cannot reach 0.05."""


@dataclass(frozen=True)
class Row:
    """One method.

    Args:
        method: name as printed, with its condition ("expert noise_mri_unet, sigma given").
        scores: level -> metric -> mean.
        n: level -> number of images.
        seconds: median wall-clock seconds per image; ``None`` where nothing was run.
        note: settings or source.
        intervals: 95 % limits of the mean over ``n`` images; printed behind it.
        spreads: mean minus and plus what the metric's definition says, a standard error or deviation; printed likewise.
        patients: level -> number of patients, where several of its images are of one.
    """

    method: str
    scores: Scores
    n: Mapping[str, int]
    seconds: float | None = None
    note: str = ""
    intervals: Limits = field(default_factory=dict)
    spreads: Limits = field(default_factory=dict)
    patients: Mapping[str, int] = field(default_factory=dict)

    def few(self, level: str) -> bool:
        """Whether too few images, or patients, are known to be behind the means of a level for an interval or a p."""
        return min(self.n.get(level, FEW), self.patients.get(level, FEW)) < FEW

    def few_patients(self, level: str) -> str:
        """Said beside a number, ``2 patients``; empty where images are each of another one, or patients enough."""
        count = self.patients.get(level, FEW)
        return f"{count} patient{'s' * (count > 1)}" if count < FEW else ""

    def interval(self, level: str, metric: str) -> tuple[float, float] | None:
        """95 % limits of a mean; ``None`` where there are none, or too few images."""
        return None if self.few(level) else _finite_limits(self.intervals.get(level, {}).get(metric))


@dataclass(frozen=True)
class Table:
    """A protocol's result.

    Args:
        protocol: name as in ``sasm evaluate NAME``.
        data_hash: SHA-256 over the sorted names and bytes of the files used; empty when skipped.
        definitions: metric name -> definition, with unit.
        rows: in print order.
        flags: conditions a reader must know (subset sizes, limits, missing weights).
        figures: file names beside the JSON.
        details: further results that are not rows (confusion table, spectra), JSON-serialisable.
        skipped: reason why nothing was measured.
        versions: of the bundles that were installed.
    """

    protocol: str
    data_hash: str = ""
    definitions: Mapping[str, str] | None = None
    rows: tuple[Row, ...] = ()
    flags: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    details: Mapping[str, Any] | None = None
    skipped: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def row(self, method: str) -> Row:
        """The row of ``method``; KeyError with the known names otherwise."""
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"no row {method!r} in {self.protocol}; rows: {[row.method for row in self.rows]}")

    def write(self, folder: Path) -> Path:
        """Write ``<folder>/<protocol>.json`` and ``.md``; returns the JSON's path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.protocol}.json"
        path.write_text(json.dumps(finite(asdict(self)), indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Table:
        """Inverse of :meth:`write` (NaN comes back as NaN)."""
        content = json.loads(path.read_text(encoding="utf-8"))
        told = " ".join((content.get("definitions") or {}).values())
        rows = tuple(_read_row(row, "[mean - " in told) for row in content.pop("rows"))
        flags, figures = tuple(content.pop("flags")), tuple(content.pop("figures"))
        return cls(**content, flags=flags, figures=figures, rows=rows)

    def markdown(self, folder: str = "", older: Mapping[str, str] | None = None) -> str:
        """The section of this protocol.

        Args:
            folder: put before figure names.
            older: bundle -> its version, of measured ones that are not those installed.
        """
        lines = [f"## {self.protocol}", ""]
        if self.skipped:
            return "\n".join([*lines, f"skipped: {self.skipped}", ""])
        lines += [f"Data: `sha256 {self.data_hash[:16]}`.", ""] if self.data_hash else []
        if older:
            named = ", ".join(f"{name} {version}" for name, version in older.items())
            lines += [f"Measured with {named}; other versions are installed now.", ""]
        lines += [f"- **{name}**: {text}" for name, text in (self.definitions or {}).items()]
        if any(row.n.get(level, FEW) < FEW for row in self.rows for level in row.intervals):
            lines.append(f"- **n below {FEW}**: no 95 % interval and no p: so few cannot reach p = 0.05")
        if any(row.few_patients(level) for row in self.rows for level in row.scores):
            lines.append(f"- **below {FEW} patients**: no 95 % interval and no p: images of one patient are alike")
        lines.append("")
        for level in self._levels():
            lines += [f"### {level}", ""] if level else []
            lines += [*self._level_table(level), ""]
        lines += [f"- {flag}" for flag in self.flags]
        notes: dict[str, list[str]] = {}
        for row in self.rows:
            notes.setdefault(row.note, []).append(row.method)
        lines += [f"- {', '.join(methods)}: {note}" for note, methods in notes.items() if note]
        lines += ["", *(f"![{Path(name).stem}]({folder}{name})" for name in self.figures), ""]
        return "\n".join(lines)

    def _levels(self) -> list[str]:
        return list(dict.fromkeys(level for row in self.rows for level in row.scores))

    def _level_table(self, level: str) -> list[str]:
        rows = [row for row in self.rows if level in row.scores]
        columns = [
            name
            for name in dict.fromkeys(name for row in rows for name in row.scores[level])
            if not _is_p(name) or any(not row.few(level) and name in row.scores[level] for row in rows)
        ]
        lines = ["| method | " + " | ".join(columns) + " | n | s/image |", "|---|" + "---:|" * (len(columns) + 2)]
        for row in rows:
            cells = [_with_limits(row, level, name) for name in columns]
            seconds = "-" if row.seconds is None else f"{row.seconds:.3g}"
            few = f" ({row.few_patients(level)})" if row.few_patients(level) else ""
            lines.append(f"| {row.method} | " + " | ".join(cells) + f" | {row.n.get(level, '-')}{few} | {seconds} |")
        return lines


def merged(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of one method on different levels become one row, with the seconds and the note of the last."""
    found: dict[str, Row] = {}
    for row in rows:
        before = found.get(row.method)
        scores = {**(before.scores if before else {}), **row.scores}
        counts = {**(before.n if before else {}), **row.n}
        intervals = {**(before.intervals if before else {}), **row.intervals}
        spreads = {**(before.spreads if before else {}), **row.spreads}
        patients = {**(before.patients if before else {}), **row.patients}
        found[row.method] = replace(
            row, scores=scores, n=counts, intervals=intervals, spreads=spreads, patients=patients
        )
    return tuple(found.values())


def _cell(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"


def _with_limits(row: Row, level: str, metric: str) -> str:
    """A mean and ``[low, high]`` behind it, where there are limits; no p of few."""
    mean = _cell(None if _is_p(metric) and row.few(level) else row.scores[level].get(metric))
    limits = row.interval(level, metric) or _finite_limits(row.spreads.get(level, {}).get(metric))
    return mean if mean == "-" or limits is None else f"{mean} [{_cell(limits[0])}, {_cell(limits[1])}]"


def _is_p(metric: str) -> bool:
    return metric.startswith("p ")


def _finite_limits(limits: Sequence[float | None] | None) -> tuple[float, float] | None:
    low, high = (math.nan if limit is None else limit for limit in limits or (None, None))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def _read_row(row: dict[str, Any], with_spreads: bool) -> Row:
    """A row of a file; older ones with standard errors or deviations have them in the place of intervals."""
    if with_spreads and "spreads" not in row:
        row = {**row, "spreads": row.get("intervals", {}), "intervals": {}}
    return Row(**{**row, "scores": _with_nan(row["scores"])})


def finite(value: Any) -> Any:
    """The same with ``None`` for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _with_nan(scores: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float]]:
    return {
        level: {name: math.nan if value is None else value for name, value in row.items()}
        for level, row in scores.items()
    }
