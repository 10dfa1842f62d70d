"""Figures beside the tables: small PNG files, drawn without a display."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.scoring import Case, Image, Method
from monai_sasm.io.commit import replacing

CROP = 160  # pixels shown of each side
DPI = 80
ACROSS = 6  # panels in a line, at most
PANEL = 2.4  # inches, side of a picture: more pixels than a crop has


def comparison(
    path: Path,
    case: Case,
    methods: Sequence[Method],
    *,
    quality: Callable[[Case, Image], float],
    window: tuple[float, float] = (0.0, 1.0),
    error: float = 0.1,
    crop: int | None = CROP,
    sources: Collection[Path] = (),
) -> str:
    """Clean, degraded, and each method's result as equal crops, error maps below; returns the file's name.

    Args:
        path: PNG to write.
        case: the example.
        methods: which methods (input included); run anew.
        quality: number printed above each crop, dB.
        window: values shown as black and white.
        error: absolute error shown as full colour, as a share of the window.
        crop: side of the crop with the most structure, pixels; ``None`` shows the whole image.
        sources: see :func:`save`.
    """
    images = {method.name: method.restore(case) for method in methods}
    box = busiest_crop(case.clean, crop) if crop else (slice(None),) * 3
    plot, panels = lines_of_panels(len(images) + 1, rows=2)
    show(panels[0][0], case.clean[box], window)
    label(panels[0][0], "clean")
    panels[0][1].text(0.5, 0.5, f"{case.level}\nerror x {1 / error:.3g}", ha="center", va="center", fontsize=8)
    for (image_axis, error_axis), (name, image) in zip(panels[1:], images.items(), strict=True):
        show(image_axis, image[box], window)
        label(image_axis, _title(name, quality(case, image)))
        difference = np.abs(image - case.clean)[box].mean(0) / (window[1] - window[0])
        error_axis.imshow(difference, cmap="inferno", vmin=0, vmax=error)
    return save(plot, path, sources)


def curves(
    path: Path,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    labels: tuple[str, str],
    log: bool = False,
) -> str:
    """Named curves (x, y) in one plot; ``labels`` of the axes."""
    plot, axes = grid(1, 1, size=4.5)
    for colour, (name, (x, y)) in zip(colours(len(lines)), lines.items(), strict=True):
        width = 2 if name.startswith(("expert", "default", "ours")) else 1
        axes[0][0].plot(x, y, label=name, color=colour, linewidth=width)
    axes[0][0].set(xlabel=labels[0], ylabel=labels[1], yscale="log" if log else "linear")
    axes[0][0].legend(fontsize=7)
    return save(plot, path)


@dataclass(frozen=True)
class StepPanel:
    """One panel of :func:`step_curves`.

    Args:
        title: what is drawn.
        values: steps -> value.
        others: method without steps -> value, a dashed line.
    """

    title: str
    values: Mapping[int, float]
    others: Mapping[str, float]


def step_curves(path: Path, panels: Sequence[StepPanel], seconds: Mapping[int, float]) -> str:
    """Quality over sampling steps, two panels a line; ``seconds`` per image are written below the steps."""
    plot, axes = grid(-(-len(panels) // 2), 2, size=3.4)
    flat = [axis for row in axes for axis in row]
    for axis, panel in zip(flat, panels, strict=False):  # the last line may have an empty place
        steps = list(panel.values)
        axis.plot(steps, list(panel.values.values()), "o-", color="C0", label="ours")
        for colour, (name, value) in enumerate(panel.others.items(), start=1):
            axis.axhline(value, linestyle="--", linewidth=1, color=f"C{colour}", label=name)
        axis.set_xscale("log")
        axis.set_xticks(
            steps, [f"{count}\n{seconds[count]:.3g} s" if count in seconds else f"{count}" for count in steps]
        )
        axis.minorticks_off()
        axis.set_title(panel.title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_xlabel("steps", fontsize=7)
        axis.legend(fontsize=7)
    for axis in flat[len(panels) :]:
        axis.axis("off")
    return save(plot, path)


def reliability_diagram(path: Path, rows: Sequence[tuple[float, float, float, float]], error: float) -> str:
    """Accuracy against confidence, with the share of the samples in each bin as bars."""
    plot, axes = grid(1, 1, size=4.0)
    confidence, accuracy, share = ([row[k] for row in rows] for k in (1, 2, 3))
    axes[0][0].bar([row[0] for row in rows], share, width=0.09, color="0.85", label="share of images")
    axes[0][0].plot([0, 1], [0, 1], "k:", linewidth=1)
    axes[0][0].plot(confidence, accuracy, "o-", label=f"accuracy (ECE {error:.3f})")
    axes[0][0].set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    axes[0][0].legend(fontsize=7, loc="upper left")
    return save(plot, path)


def confusion_table(path: Path, counts: NDArray[np.integer], names: Sequence[str]) -> str:
    """Confusion counts (truth in rows) as a shaded table."""
    plot, axes = grid(1, 1, size=4.5)
    axes[0][0].imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        axes[0][0].text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8)
    axes[0][0].set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
    axes[0][0].set_yticks(range(len(names)), names, fontsize=7)
    axes[0][0].set(xlabel="gate", ylabel="truth")
    return save(plot, path)


def panels(path: Path, images: Mapping[str, Image], columns: int = 5) -> str:
    """Titled pictures in [0, 1], ``(3, H, W)`` or ``(1, H, W)``, in a grid."""
    plot, places = lines_of_panels(len(images), columns=columns)
    for (axis,), (name, image) in zip(places, images.items(), strict=True):
        show(axis, image, (0.0, 1.0))
        label(axis, name)
    return save(plot, path)


def lines_of_panels(
    count: int, *, rows: int = 1, columns: int = ACROSS, size: float = PANEL
) -> tuple[Any, list[tuple[Any, ...]]]:
    """A figure with ``count`` places of ``rows`` axes below one another, at most ``columns`` places in a line.

    Axes have no frame; those of the last line that are not needed stay empty.
    """
    columns = min(columns, ACROSS, count)
    lines = -(-count // columns)
    plot, axes = grid(rows * lines, columns, size=size)
    for axis in axes.flat:
        axis.axis("off")
    places = [(line, column) for line in range(lines) for column in range(columns)]
    return plot, [tuple(axes[rows * line : rows * (line + 1), column]) for line, column in places[:count]]


def grid(rows: int, columns: int, size: float = 1.9) -> tuple[Any, Any]:
    """A figure and its axes ``(rows, columns)``; ``size`` of one in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plot = Figure(figsize=(size * columns, size * rows * 1.08), dpi=DPI, layout="constrained")
    FigureCanvasAgg(plot)
    return plot, plot.subplots(rows, columns, squeeze=False)


def show(axis: Any, image: Image, window: tuple[float, float]) -> None:
    """Draw ``(3, H, W)`` or ``(1, H, W)`` without ticks; ``window`` are the values shown as black and white."""
    shown = np.clip((image - window[0]) / (window[1] - window[0]), 0, 1)
    axis.imshow(shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0], cmap="gray", vmin=0, vmax=1)
    axis.axis("off")


def label(axis: Any, text: str) -> None:
    """Words inside a picture, at its upper left corner."""
    box = {"facecolor": "black", "edgecolor": "none", "pad": 2, "alpha": 0.7}
    axis.text(0.02, 0.98, text, transform=axis.transAxes, va="top", fontsize=8, color="white", bbox=box)


def colours(count: int) -> list[Any]:
    """As many colours, none of them twice."""
    from matplotlib import colormaps

    if count <= 20:
        return [colormaps["tab10" if count <= 10 else "tab20"](k) for k in range(count)]
    return [colormaps["gist_rainbow"](k / (count - 1)) for k in range(count)]


def busiest_crop(image: Image, crop: int) -> tuple[slice, slice, slice]:
    """The crop with the largest gradient energy on a coarse grid of positions."""
    height, width = image.shape[-2:]
    side = min(crop, height, width)
    dy, dx = np.gradient(image.mean(0))
    energy = np.hypot(dy, dx)
    starts = [(y, x) for y in range(0, height - side + 1, 32) for x in range(0, width - side + 1, 32)]
    y, x = max(starts, key=lambda start: energy[start[0] : start[0] + side, start[1] : start[1] + side].sum())
    return slice(None), slice(y, y + side), slice(x, x + side)


def save(plot: Any, path: Path, sources: Collection[Path] = ()) -> str:
    """Write a PNG in true colour, since a palette hides noise and makes bands; returns its name.

    ``sources`` are the files of a user's images that it shows, see :func:`monai_sasm.io.commit.replacing`.
    """
    from PIL import Image as PillowImage

    plot.canvas.draw()
    picture = PillowImage.fromarray(np.asarray(plot.canvas.buffer_rgba())[..., :3].copy())
    with replacing(path, sources=sources) as file:
        picture.save(file, "PNG", optimize=True)
    return path.name


def _title(name: str, value: float) -> str:
    """Name and dB; a long name in several lines, as wide as a panel."""
    lines = textwrap.wrap(name, 24)
    return "\n".join([*lines, f"{value:.2f} dB"])
