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


@dataclass(frozen=True)
class Row:
    """One method.

    Args:
        method: name as printed, with its condition ("expert noise_mri_unet, sigma given").
        scores: level -> metric -> mean.
        n: level -> number of images.
        seconds: median wall-clock seconds per image; ``None`` where nothing was run.
        note: settings or source.
        intervals: level -> metric -> lower and upper limit of its mean; printed behind it.
    """

    method: str
    scores: Scores
    n: Mapping[str, int]
    seconds: float | None = None
    note: str = ""
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)


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
    """

    protocol: str
    data_hash: str = ""
    definitions: Mapping[str, str] | None = None
    rows: tuple[Row, ...] = ()
    flags: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    details: Mapping[str, Any] | None = None
    skipped: str | None = None

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
        rows = tuple(Row(**{**row, "scores": _with_nan(row["scores"])}) for row in content.pop("rows"))
        flags, figures = tuple(content.pop("flags")), tuple(content.pop("figures"))
        return cls(**content, flags=flags, figures=figures, rows=rows)

    def markdown(self, folder: str = "") -> str:
        """The section of this protocol; ``folder`` is put before figure names."""
        lines = [f"## {self.protocol}", ""]
        if self.skipped:
            return "\n".join([*lines, f"skipped: {self.skipped}", ""])
        lines += [f"Data: `sha256 {self.data_hash[:16]}`.", ""] if self.data_hash else []
        lines += [f"- **{name}**: {text}" for name, text in (self.definitions or {}).items()] + [""]
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
        columns = list(dict.fromkeys(name for row in rows for name in row.scores[level]))
        lines = ["| method | " + " | ".join(columns) + " | n | s/image |", "|---|" + "---:|" * (len(columns) + 2)]
        for row in rows:
            limits = row.intervals.get(level, {})
            cells = [_cell(row.scores[level].get(name)) + _limits(limits.get(name)) for name in columns]
            seconds = "-" if row.seconds is None else f"{row.seconds:.3g}"
            lines.append(f"| {row.method} | " + " | ".join(cells) + f" | {row.n.get(level, '-')} | {seconds} |")
        return lines


def merged(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of one method on different levels become one row, with the seconds and the note of the last."""
    found: dict[str, Row] = {}
    for row in rows:
        before = found.get(row.method)
        scores = {**(before.scores if before else {}), **row.scores}
        counts = {**(before.n if before else {}), **row.n}
        intervals = {**(before.intervals if before else {}), **row.intervals}
        found[row.method] = replace(row, scores=scores, n=counts, intervals=intervals)
    return tuple(found.values())


def _cell(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.4f}" if abs(value) < 2 else f"{value:.2f}"


def _limits(interval: Sequence[float | None] | None) -> str:
    """``[low, high]`` behind a mean; nothing where there are none."""
    if interval is None or any(limit is None or not math.isfinite(limit) for limit in interval):
        return ""
    return f" [{_cell(interval[0])}, {_cell(interval[1])}]"


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
