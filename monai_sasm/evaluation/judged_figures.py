"""Figures of protocols with a judge: restored slices with errors, outlines, PSNR against Dice, quality against time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
        for colour, row in zip(colours(len(rows)), rows, strict=True):
            scores = row.scores[level]
            if math.isfinite(scores.get("PSNR", math.nan)):
                _point(axis, (scores["PSNR"], scores["Dice"]), row.method, colour=colour)
        clean = next((row.scores[level]["Dice"] for row in rows if row.method == CLEAN), None)
        if clean is not None:
            axis.axhline(clean, linestyle="--", linewidth=1, color="0.5", label="clean")
            axis.legend(fontsize=7)
        axis.set(xlabel="PSNR, dB", ylabel="Dice", title=level)
    return save(plot, path)


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
    plot, axes = grid(1, len(metrics), size=4.2)
    for axis, metric in zip(axes[0], metrics, strict=True):
        drawn = [row for row in rows if row.seconds and math.isfinite(row.scores[level].get(metric, math.nan))]
        for colour, row in zip(colours(len(drawn)), drawn, strict=True):
            _point(axis, (float(row.seconds or 0), row.scores[level][metric]), row.method, colour=colour)
        start = next((row.scores[level][metric] for row in rows if row.method == before), math.nan)
        if math.isfinite(start):
            axis.axhline(start, linestyle=":", linewidth=1, color="0.5", label=before)
            axis.legend(fontsize=7)
        axis.set(xlabel=f"s per {per}", ylabel=metric, xscale="log" if drawn else "linear", title=level)
    return save(plot, path)


def _point(axis: Any, place: tuple[float, float], name: str, *, colour: Any) -> None:
    axis.plot([place[0]], [place[1]], "o", markersize=5, color=colour)
    axis.annotate(name, place, textcoords="offset points", xytext=(4, 3), fontsize=7, annotation_clip=True)
    axis.margins(x=0.25)  # the names stay inside


def outline(axis: Any, region: Any, *, colour: str, width: float) -> None:
    """Draw the border of a region ``(H, W)``; nothing where it is empty or everything."""
    if region.any() and not region.all():
        axis.contour(region.astype(float), levels=[0.5], colors=[colour], linewidths=width)
