"""The page of ``sasm qualify``: one HTML file with its pictures inside, true colour, nothing about the patient."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm import __version__
from monai_sasm.evaluation.figures import grid, label, lines_of_panels, show
from monai_sasm.evaluation.qualify_photos import Pair
from monai_sasm.evaluation.qualify_sample import Sample
from monai_sasm.evaluation.tissues import local_deviation
from monai_sasm.types import Modality

Image = NDArray[np.float32]
WINDOWS = {Modality.CT: (-160.0, 240.0), Modality.MR: (0.0, 110.0)}
SHOWN = 3  # slices
TOP = 2.5  # times the median of a noise map that is shown brightest
PHOTO_CROP = 256  # pixels shown of each side
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}figure{margin:1.5rem 0}figcaption{color:#555}
.said{font-size:1.15rem;border-left:4px solid #1f6feb;padding:.4rem 1rem;background:#f3f7ff}
.outside{border-color:#b35900;background:#fff6ec}"""
LABELS = {
    "modality": "modality",
    "slices": "slices",
    "photos": "photos",
    "sampled": "measured",
    "pixel_mm": "pixel, mm",
    "scanner": "scanner",
    "kernel": "kernel",
    "body_part": "body part",
    "thickness": "slice thickness, mm",
    "kilovolts": "tube voltage, kV",
    "exposure": "exposure, mAs",
    "dose": "CTDIvol, mGy",
    "tesla": "field, T",
    "echo": "echo time, ms",
    "repetition": "repetition time, ms",
}


def series_page(found: Mapping[str, Any], sample: Sample) -> str:
    """The page of a CT or MR series, from what :func:`monai_sasm.evaluation.qualify.qualify` gives."""
    unit, rows = found["unit"], found["strengths"]
    parts = [
        _facts(found),
        _said(found),
        *_ranges(found["range"]),
        "<h2>Before and after</h2>",
        _figure(
            _slices(sample, found["recommended"]["strength"]),
            f"Slices as they came, restored, what full strength takes away, weight of the experts; {unit}.",
        ),
        "<h2>Noise</h2>",
        _noise_table(rows, unit),
        _figure(
            _maps(sample),
            f"Noise map, {unit}: standard deviation in windows of {sample.window} pixels, before and after; edges of "
            "organs are no noise.",
        ),
        "<h2>Contrast of small, faint lesions</h2>",
        _gain_table(rows),
        f"<p>Discs of so many mm and {unit} are pasted into the {found['measured_in']['lesions']} most uniform places; "
        "the gain is the share of their contrast that is left, with its standard error.</p>",
        "<h2>Mean values</h2>",
        _table(
            ["strength", *rows[0]["shift"]],
            [[f"{row['strength']:g}", *(_number(value, "+.2f") for value in row["shift"].values())] for row in rows],
        ),
        f"<p>Shift of the mean by kind of tissue, {unit}.</p>",
    ]
    if "nps" in rows[0]:
        first = rows[0]["nps"]["mean_per_cm"]
        moved = [f"{100 * (row['nps']['mean_per_cm'] / first - 1):+.0f} % at {row['strength']:g}" for row in rows[1:]]
        caption = f"Noise power spectrum; its mean, {first:.2f} cycles/cm, moves by {', '.join(moved)}."
        parts += ["<h2>Grain</h2>", _figure(_spectra(rows), caption)]
    if "quantiles" in rows[0]:
        parts += ["<h2>Histogram</h2>", _quantile_table(rows), _figure(_histogram(sample), "Values in the patient.")]
    parts += ["<h2>What the gate does</h2>", _weights(found)]
    return _page(f"{found['series']['modality']} series", parts, found)


def photo_page(found: Mapping[str, Any], pairs: Sequence[Pair]) -> str:
    """The page of photos."""
    noise = found["noise"]
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in found["mean_weights"].items()) or "no expert acts"
    said = (
        f"Noise estimate {noise['median']:.1f} of 255 in the middle photo "
        f"({noise['least']:.1f} to {noise['most']:.1f}). Mean weights: {weights}."
    )
    names = list(found["mean_weights"])
    rows = [
        [
            str(row["photo"]),
            *(_number(row[key], ".1f") for key in ("noise", "noise_after", "change")),
            *(_number(row["weights"].get(name, 0.0), ".2f") for name in names),
        ]
        for row in found["photos"]
    ]
    parts = [
        _facts(found),
        f'<p class="said">{html.escape(said)}</p>',
        _table(["photo", "noise estimate", "after", "mean change", *names], rows),
        "<p>Levels of 255; weights are means over the photo. Of the grain of cameras the estimate reads a fifth.</p>",
        _figure(_photos(pairs, found["photos"]), "Middle of each photo, before and after."),
    ]
    return _page("Photos", parts, found)


def _page(title: str, parts: Iterable[str], found: Mapping[str, Any]) -> str:
    models = ", ".join(f"{name} {sha[:12]}" for name, sha in found.get("models", {}).items())
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>sasm qualify: {title}</title>'
        f"<style>{STYLE}</style></head><body><h1>sasm qualify: {title}</h1>\n"
        + "\n".join(parts)
        + f"\n<p><small>monai_sasm {__version__}; {html.escape(models)}. Not a medical device.</small></p>"
        + "</body></html>\n"
    )


def _facts(found: Mapping[str, Any]) -> str:
    rows = []
    for key, words in LABELS.items():
        value = found["series"].get(key)
        if value not in (None, "", []):
            shown = ", ".join(f"{one:g}" for one in value) if isinstance(value, list) else value
            rows.append([words, f"{shown:.4g}" if isinstance(shown, float) else str(shown)])
    return _table(["restored by", found["by"]], rows)


def _said(found: Mapping[str, Any]) -> str:
    best, unit = found["recommended"], found["unit"]
    if best["strength"] is None:
        return f'<p class="said">Nothing to recommend: {html.escape(best["reason"])}.</p>'
    kept = ", ".join(f"{label} {gain:.0%}" for label, gain in best["gain"].items()) or "not measured"
    return (
        f'<p class="said">Recommended: <b>--strength {best["strength"]:g}</b> ({html.escape(best["reason"])}). Noise '
        f"{best['noise_now']:.1f} &rarr; {best['noise']:.1f} {unit}; contrast kept: {html.escape(kept)}.</p>"
    )


def _ranges(ranges: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, one in ranges.items():
        reasons = "; ".join(one["outside"])
        words = f"outside the range it was trained and measured for: {reasons}" if reasons else "inside its range"
        lines.append(f'<p class="said{" outside" * bool(reasons)}">{html.escape(name)}: {html.escape(words)}.</p>')
    return lines


def _noise_table(rows: Sequence[Mapping[str, Any]], unit: str) -> str:
    further = [
        (key, label)
        for key, label in (
            ("uniform_noise", "uniform squares"),
            ("background_noise", "background"),
            ("signal_to_noise", "signal / noise"),
        )
        if key in rows[0]
    ]
    head = ["strength", *rows[0]["noise"], *(label for _, label in further)]
    body = [
        [
            f"{row['strength']:g}",
            *(_number(value, ".2f") for value in row["noise"].values()),
            *(_number(row[key], ".2f") for key, _ in further),
        ]
        for row in rows
    ]
    said = f"Standard deviation by kind of tissue, {unit}, at the same pixels of the patient; 0 is the series as it is."
    return _table(head, body) + f"<p>{said} Places where values are clipped are left out.</p>"


def _gain_table(rows: Sequence[Mapping[str, Any]]) -> str:
    body = []
    for row in rows[1:]:
        cells = [f"{_number(one['gain'], '.3f')} \u00b1 {_number(one['error'], '.3f')}" for one in row["gain"].values()]
        body.append([f"{row['strength']:g}", *cells])
    return _table(["strength", *(f"{label} (n {one['places']})" for label, one in rows[0]["gain"].items())], body)


def _quantile_table(rows: Sequence[Mapping[str, Any]]) -> str:
    body = [[f"{row['strength']:g}", *(_number(value, ".2f") for value in row["quantiles"].values())] for row in rows]
    return _table(["strength", *(f"{name} %" for name in rows[0]["quantiles"])], body)


def _weights(found: Mapping[str, Any]) -> str:
    if not found["weights"]:
        return "<p>No expert acts: every pixel stays as it is.</p>"
    kinds = list(next(iter(found["weights"].values()))["tissues"])
    body = [
        [
            name,
            _number(one["patient"], ".2f"),
            *(_number(one["tissues"][kind], ".2f") for kind in kinds),
            f"{min(one['slices']):.2f} to {max(one['slices']):.2f}",
        ]
        for name, one in found["weights"].items()
    ]
    return _table(["mean weight", "patient", *kinds, "slice by slice"], body)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>\n" for row in rows)
    return f"<table><tr>{cells}</tr>\n{body}</table>"


def _number(value: float, spec: str) -> str:
    return format(value, spec) if math.isfinite(value) else "\u2013"


def _figure(plot: Any, caption: str) -> str:
    from PIL import Image as PillowImage

    plot.canvas.draw()
    buffer = io.BytesIO()
    PillowImage.fromarray(np.asarray(plot.canvas.buffer_rgba())[..., :3].copy()).save(buffer, "PNG")
    content = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{content}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _chosen(sample: Sample) -> list[int]:
    return [int(k) for k in np.unique(np.linspace(0, len(sample.before) - 1, SHOWN).round())]


def _slices(sample: Sample, recommended: float | None) -> Any:
    window, indices = WINDOWS[sample.modality], _chosen(sample)
    strengths = [1.0] if recommended in (None, 0.0, 1.0) else [float(recommended or 0), 1.0]
    plot, axes = grid(len(indices), 3 + len(strengths), size=2.9)
    weights = np.sum([np.zeros_like(sample.before), *sample.weights.values()], axis=0)
    reach = float(np.percentile(np.abs(sample.after - sample.before), 99)) or 1.0
    for line, k in zip(axes, indices, strict=True):
        for axis, strength in zip(line, (0.0, *strengths), strict=False):
            show(axis, sample.shown(sample.at(strength)[k])[None], window)
        line[-2].imshow(sample.shown(sample.before[k] - sample.after[k]), cmap="RdBu_r", vmin=-reach, vmax=reach)
        line[-1].imshow(sample.shown(weights[k]), cmap="viridis", vmin=0, vmax=1)
        words = [f"slice {sample.indices[k] + 1}", *(f"strength {strength:g}" for strength in strengths)]
        _label(line, [*words, f"taken away, ±{reach:.3g}", "weight, 0 to 1"])
    return plot


def _maps(sample: Sample) -> Any:
    k = _chosen(sample)[len(_chosen(sample)) // 2]
    maps = [local_deviation(one[k], sample.window) for one in (sample.before, sample.after)]
    top = TOP * float(np.median(maps[0][sample.bodies[k]])) if sample.bodies[k].any() else float(maps[0].max())
    plot, axes = grid(1, 2, size=4.2)
    for axis, one in zip(axes[0], maps, strict=True):
        drawn = axis.imshow(sample.shown(one), cmap="magma", vmin=0, vmax=top or 1.0)
    _label(axes[0], ("before", "after"))
    plot.colorbar(drawn, ax=axes[0].tolist(), shrink=0.8)
    return plot


def _spectra(rows: Sequence[Mapping[str, Any]]) -> Any:
    plot, axes = grid(1, 2, size=4.0)
    for row in rows:
        power, frequency = np.asarray(row["nps"]["power"]), row["nps"]["frequency_per_cm"]
        colour = f"{0.75 - 0.75 * row['strength']:.2f}"
        axes[0][0].plot(frequency, power, color=colour, label=f"strength {row['strength']:g}")
        axes[0][1].plot(frequency, power / power.max(), color=colour)
    axes[0][0].set(xlabel="cycles / cm", ylabel="NPS, HU² mm²")
    axes[0][1].set(xlabel="cycles / cm", ylabel="NPS over its peak")
    axes[0][0].legend(fontsize=8)
    return plot


def _histogram(sample: Sample) -> Any:
    plot, axes = grid(1, 1, size=4.5)
    for images, name in ((sample.before, "before"), (sample.after, "after")):
        axes[0][0].hist(sample.in_patient(images), 120, range=(0, 130), density=True, histtype="step", label=name)
    axes[0][0].set(xlabel="% of white", ylabel="share of the patient")
    axes[0][0].legend(fontsize=8)
    return plot


def _photos(pairs: Sequence[Pair], rows: Sequence[Mapping[str, Any]]) -> Any:
    plot, places = lines_of_panels(2 * len(pairs), columns=4, size=2.9)
    for number, (pair, row) in enumerate(zip(pairs, rows, strict=True)):
        height, width = pair.before.shape[-2:]
        top, left = max(0, (height - PHOTO_CROP) // 2), max(0, (width - PHOTO_CROP) // 2)
        box = (slice(None), slice(top, top + PHOTO_CROP), slice(left, left + PHOTO_CROP))
        (first,), (second,) = places[2 * number : 2 * number + 2]
        show(first, pair.before[box], (0.0, 1.0))
        show(second, pair.after[box], (0.0, 1.0))
        _label((first, second), (f"photo {row['photo']}, noise {row['noise']:.1f}", f"after, {row['noise_after']:.1f}"))
    return plot


def _label(axes: Iterable[Any], words: Sequence[str]) -> None:
    for axis, text in zip(axes, words, strict=True):
        axis.axis("off")
        label(axis, text)
