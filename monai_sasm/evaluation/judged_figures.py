"""Figures of protocols with a judge: restored slices with errors, outlines, PSNR against Dice, quality against time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.evaluation.figures import colours, grid, label, lines_of_panels, save, show
from monai_sasm.evaluation.judge import Regions
from monai_sasm.evaluation.judged import CLEAN, DEGRADED
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import Case, Image, Method
from monai_sasm.evaluation.table import Row

ERROR = 0.2  # absolute error shown as full colour, working scale
COLOURS = ("tab:orange", "tab:cyan", "tab:pink")
SHAPES = "osD^vPX"  # of points, told apart without colours, too
LEGEND = 2.4  # inches beside the panels
Segment = Callable[[Case, Image], Regions]
"""(case, stack ``(N, H, W)``) -> regions ``(N, H, W)``."""


def all_figures(
    folder: Path,
    protocol: str,
    cases: Sequence[Case],
    *,
    methods: Sequence[Method],
    rows: Sequence[Row],
    segment: Segment,
) -> tuple[str, ...]:
    """Slices and outlines of one case per level, and the two plots; returns the files' names.

    Args:
        folder: where to.
        protocol: start of the files' names.
        cases: clean and degraded stacks ``(N, H, W)`` in working scale; ``facts["truth"]`` has regions ``(I, J, K)``.
        methods: run anew on the shown cases.
        rows: as measured, with ``PSNR`` and ``Dice``.
        segment: the judge.
    """
    names = []
    for level in dict.fromkeys(case.level for case in cases):
        example = next(case for case in cases if case.level == level)
        names.append(slices(folder / f"{protocol}-{level}.png", example, methods, segment=segment))
    names.append(psnr_against_dice(folder / f"{protocol}-dice.png", rows))
    names.append(quality_against_time(folder / f"{protocol}-time.png", rows))
    return tuple(names)


def slices(path: Path, case: Case, methods: Sequence[Method], *, segment: Segment) -> str:
    """Each method's slice, its error, and the judge's outlines (drawn by people: white) on it, in three lines."""
    truth = {name: region.transpose(2, 1, 0) for name, region in case.facts["truth"].items()}
    index = int(np.argmax(sum(region.sum((1, 2)) for region in truth.values())))
    plot, places = lines_of_panels(len(methods), rows=3)
    for (image_axis, error_axis, outline_axis), method in zip(places, methods, strict=True):
        image = method.restore(case)
        value = psnr(case.clean, image, 1.0)
        show(image_axis, image[index][None], (0.0, 1.0))
        title = method.name if math.isinf(value) else f"{method.name}\n{value:.2f} dB"
        label(image_axis, title)
        error_axis.imshow(np.abs(image - case.clean)[index], cmap="inferno", vmin=0, vmax=ERROR)
        show(outline_axis, image[index][None], (0.0, 1.0))
        found = segment(case, image)
        for colour, (name, region) in zip(COLOURS, truth.items(), strict=False):
            outline(outline_axis, region[index], colour="white", width=0.6)
            outline(outline_axis, found[name][index], colour=colour, width=1.0)
    return save(plot, path)


def psnr_against_dice(path: Path, rows: Sequence[Row]) -> str:
    """One point per method and level: what is near in pixels need not be right for the judge."""
    levels = list(dict.fromkeys(level for row in rows for level in row.scores))
    plot, axes = grid(1, len(levels), size=4.2)
    for axis, level in zip(axes[0], levels, strict=True):
        scores = {row.method: row.scores[level] for row in rows}
        _points(axis, {name: (one.get("PSNR", math.nan), one.get("Dice", math.nan)) for name, one in scores.items()})
        if CLEAN in scores:
            axis.axhline(scores[CLEAN]["Dice"], linestyle="--", linewidth=1, color="0.5", label=f"Dice of {CLEAN}")
        axis.set(xlabel="PSNR, dB", ylabel="Dice", title=level)
    return _with_legend(plot, path)


def quality_against_time(
    path: Path,
    rows: Sequence[Row],
    *,
    metrics: Sequence[str] = ("PSNR", "Dice"),
    before: str = DEGRADED,
    per: str = "slice",
) -> str:
    """Metrics over seconds ``per`` slice or image, at the first level; ``before`` is the row without restoration."""
    level = next(iter(rows[0].scores))
    timed = {row.method: (row.seconds, row.scores[level]) for row in rows if row.seconds and row.method != before}
    times = [seconds for seconds, _ in timed.values()]
    plot, axes = grid(1, len(metrics), size=4.2)
    for axis, metric in zip(axes[0], metrics, strict=True):
        _points(axis, {name: (seconds, scores.get(metric, math.nan)) for name, (seconds, scores) in timed.items()})
        start = next((row.scores[level][metric] for row in rows if row.method == before), math.nan)
        if math.isfinite(start):
            axis.axhline(start, linestyle=":", linewidth=1, color="0.5", label=before)
        axis.set(xlabel=f"s per {per}", ylabel=metric, xscale="log" if timed else "linear", title=level)
        if timed:  # alike in all panels, and wide enough for powers of ten
            axis.set_xlim(min(times) / 2, 2 * max(times))
    return _with_legend(plot, path)


def _points(axis: Any, places: Mapping[str, tuple[float, float]]) -> None:
    """A point per method, of one colour and shape in all panels that are given the same names."""
    for number, (colour, (name, (x, y))) in enumerate(zip(colours(len(places)), places.items(), strict=True)):
        if math.isfinite(x) and math.isfinite(y):
            axis.plot([x], [y], SHAPES[number % len(SHAPES)], markersize=6, color=colour, label=name)


def _with_legend(plot: Any, path: Path) -> str:
    """Write a figure with one legend for all panels beside them: at the points, names would lie on one another."""
    entries: dict[str, Any] = {}
    for axis in plot.axes:
        handles, names = axis.get_legend_handles_labels()
        entries |= dict(zip(names, handles, strict=True))
    if entries:
        plot.set_size_inches(plot.get_figwidth() + LEGEND, plot.get_figheight())
        plot.legend(entries.values(), entries.keys(), loc="outside right center", fontsize=8)
    return save(plot, path)


def outline(axis: Any, region: Any, *, colour: str, width: float) -> None:
    """Draw the border of a region ``(H, W)``; nothing where it is empty or everything."""
    if region.any() and not region.all():
        axis.contour(region.astype(float), levels=[0.5], colors=[colour], linewidths=width)
