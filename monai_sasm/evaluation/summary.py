"""The first page of docs/RESULTS.md: what each expert gives, what it keeps, what it costs, and when to use it.

Every number is taken from the stored table of a protocol; :data:`monai_sasm.evaluation.tasks.LINES` says from which
row. A line whose protocol was not run is left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from monai_sasm.evaluation.measured import bundle_of, older
from monai_sasm.evaluation.scoring import Gain
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.evaluation.tasks import LINES, SUBSET, Figure, Line

HEAD = (
    "| task | expert | gain | best peer, same run | keeps | s/image | use when | do not use when |\n"
    "|---|---|---|---|---|---:|---|---|"
)
NOTES = """- **gain**: over the image as it came; [95 % interval] of its mean, each image against itself before, where
  six or more were, of six or more patients; of fewer patients their number. Points: per cent of
  accuracy over a plain CNN; %: change of a distance, smaller is better. Peers are methods of others, told the noise and
  tuned; for an expert that rivals a U-Net of the same task, that one, too. The gain of a peer that is too slow for all
  images is that on a subset, and so is the expert's behind it.
- **keeps**: contrast left of a pasted disc or lesion, mean HU shift, share of clean images touched, known pixels;
  `->` from the image as it came to the restored one.
- **(0.1.0)** behind a name: measured with weights of that version of it or of the gate; others are installed now.
"""


def summary(tables: Mapping[str, Table], versions: Mapping[str, str]) -> str:
    """The page, in Markdown.

    Args:
        tables: protocol -> its stored table.
        versions: bundle -> installed version.
    """
    lines = [text for line in LINES if (text := _line(line, tables, versions)) is not None]
    return "\n".join(["## At a glance", "", HEAD, *lines, "", NOTES]) if lines else ""


def _line(line: Line, tables: Mapping[str, Table], versions: Mapping[str, str]) -> str | None:
    table = tables.get(line.gain.protocol)
    row, start = (None, None) if table is None else (_row(table, line.gain.rows), _row(table, (line.before,)))
    if table is None or row is None or start is None:
        return None
    value, before = _value(row, line.gain), _value(start, line.gain)
    if not (math.isfinite(value) and math.isfinite(before)):
        return None
    gain = _gain(line.unit, value, before) + _interval(line, row)
    kept = [text for one in line.keeps if (text := _kept(one, tables)) is not None]
    cells = (
        line.task,
        f"`{line.expert}`{_age(line, table, versions)}",
        gain,
        _best_peer(line, table, row, versions),
        ", ".join(kept) or "-",
        "-" if row.seconds is None else f"{row.seconds:.2g}",
        line.use,
        line.avoid,
    )
    return f"| {' | '.join(cells)} |"


def _row(table: Table, names: Sequence[str]) -> Row | None:
    return next((row for name in names for row in table.rows if row.method == name), None)


def _value(row: Row, figure: Figure) -> float:
    """Mean over the levels that are there; NaN where there is none."""
    found = [row.scores[level].get(figure.metric, math.nan) for level in figure.levels if level in row.scores]
    return statistics.fmean(found) if found else math.nan


def _gain(unit: str, value: float, before: float) -> str:
    if unit == "points":
        return f"{100 * (value - before):+.1f} points"
    return f"{100 * (value / before - 1):+.1f} %" if unit == "%" else f"{value - before:+.2f} dB"


def _interval(line: Line, row: Row) -> str:
    """Limits of the paired gain, where one level has them. Those of the restored image's own mean are no substitute:
    they hold what the images differ in, before and after. Of too few patients their number."""
    if line.unit == "%" or len(line.gain.levels) > 1:
        return ""
    if few := row.few_patients(line.gain.levels[0]):
        return f" ({few})"
    metric = line.gain.metric if line.gain.metric == "gain" else Gain(line.gain.metric).name
    limits = row.interval(line.gain.levels[0], metric)
    if limits is None:
        return ""
    factor, places = (100, 1) if line.unit == "points" else (1, 2)
    return f" [{', '.join(f'{factor * limit:+.{places}f}' for limit in limits)}]"


def _best_peer(line: Line, table: Table, expert: Row, versions: Mapping[str, str]) -> str:
    """The peer that comes nearest to the expert, or furthest above it, on the same images; for one that ran on a subset
    the gains of both there. A peer on a subset without the expert is no comparison, and left out."""
    sign = -1 if line.unit == "%" else 1
    found = []
    for name in line.peers:
        suffix = SUBSET if name.endswith(SUBSET) else ""
        rows = [_row(table, (method + suffix,)) for method in (name.removesuffix(SUBSET), expert.method, line.before)]
        value, own, before = (math.nan if row is None else _value(row, line.gain) for row in rows)
        if all(map(math.isfinite, (value, own, before))):
            text = f"{name}{_mark(older([bundle_of(name)], table, versions))} {_gain(line.unit, value, before)}"
            if suffix:
                count = max(rows[0].n.get(level, 0) for level in line.gain.levels) if rows[0] else 0
                text += f", the expert there {_gain(line.unit, own, before)}, n = {count}"
            found.append((sign * (value - own), text))
    return max(found)[1] if found else "-"


def _kept(figure: Figure, tables: Mapping[str, Table]) -> str | None:
    table = tables.get(figure.protocol)
    rows = [figure.rows] if not figure.before else [(figure.before,), figure.rows]
    found = [] if table is None else [_row(table, names) for names in rows]
    values = [math.nan if row is None else _value(row, figure) for row in found]
    return figure.text.format(*values) if values and all(map(math.isfinite, values)) else None


def _age(line: Line, table: Table, versions: Mapping[str, str]) -> str:
    """The version that was measured, where another one of the expert or the gate is installed."""
    return _mark(older([line.expert, *(["gate_mobilenet"] if line.gate else [])], table, versions))


def _mark(found: Mapping[str, str]) -> str:
    return f" ({min(found.values())})" if found else ""
