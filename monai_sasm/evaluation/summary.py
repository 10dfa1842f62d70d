"""The first page of docs/RESULTS.md: what each expert gives, what it keeps, what it costs, and when to use it.

Every number is taken from the stored table of a protocol; :data:`LINES` says from which row. A line whose protocol was
not run is left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.scoring import Gain
from monai_sasm.evaluation.table import Row, Table

SUBSET = " (BM3D subset)"


@dataclass(frozen=True)
class Figure:
    """One number of a stored table.

    Args:
        protocol: whose table.
        rows: names of a method, the first one found counts: older tables name it otherwise.
        metric: of :attr:`Row.scores`.
        text: how it is printed, a format with one place, and one more in front where there is ``before``.
        levels: the mean over those that are there.
        before: row of what it was without restoration, for a number that says nothing alone.
    """

    protocol: str
    rows: tuple[str, ...]
    metric: str
    text: str
    levels: tuple[str, ...] = ("",)
    before: str = ""


@dataclass(frozen=True)
class Line:
    """One task and its expert.

    Args:
        task: in few words.
        expert: bundle; with ``default`` the row is that of the whole pipeline, gate included.
        gain: what it is measured by.
        before: row without restoration.
        peers: rows in the same run: methods of others, and the U-Net of the task for an expert that rivals it.
        unit: of the gain: ``dB``, ``points`` (shares in per cent), or ``%`` (of the value before, smaller is better).
        keeps: what else counts.
        use: when to use it.
        avoid: when not.
    """

    task: str
    expert: str
    gain: Figure
    before: str
    peers: tuple[str, ...]
    use: str
    avoid: str
    unit: str = "dB"
    keeps: tuple[Figure, ...] = ()
    gate: bool = True


_CT = ("BM3D", "NLM fast", "TV", "bilateral")
_L096 = ("L096 D45f (test)",)
_LESION = "gain 3 mm/14"
_BY_NAME = "named: `--expert`"
_NETWORKS = {"U-Net": "superres_mri_unet"}  # row -> bundle, where the row does not name it


def _ct_rival(name: str, row: str) -> Line:
    return Line(
        "CT at quarter dose",
        name,
        Figure("ct-lowdose", (row,), "PSNR", "", _L096),
        "input",
        (*_CT, "expert lowdose_ct_unet"),
        "its texture is preferred",
        "fidelity or speed count: the U-Net is better",
        keeps=(Figure("ct-lowdose", (row,), "bias", "HU {:+.1f}", _L096),),
        gate=False,
    )


def _mr_rival(name: str, row: str) -> Line:
    return Line(
        "MR, coarse x4 (hippocampus)",
        name,
        Figure("mri-superres", (row,), "PSNR inside", "", ("x4",)),
        "zero-filled",
        ("cubic", "U-Net"),
        "networks are compared",
        "anything else: the U-Net is better and faster",
        keeps=(Figure("mri-superres", (row,), "Dice", "Dice {:.3f} -> {:.3f}", ("x4",), "zero-filled"),),
        gate=False,
    )


LINES = (
    Line(
        "CT at quarter dose",
        "lowdose_ct_unet",
        Figure("ct-lowdose", (DEFAULT, "expert lowdose_ct_unet", "ours"), "PSNR", "", _L096),
        "input",
        _CT,
        "noise is clearly above that of the usual dose; `sasm qualify` first",
        "lesions of 3 mm decide: lower `--strength`",
        keeps=(
            Figure("ct-lesions", (DEFAULT,), _LESION, "3 mm/14 HU {:.0%}", ("quarter",)),
            Figure(
                "ct-lesions", (f"{DEFAULT}, noise as full dose",), _LESION, "at noise as full dose {:.0%}", ("quarter",)
            ),
            Figure("ct-lowdose", (DEFAULT, "expert lowdose_ct_unet", "ours"), "bias", "HU {:+.1f}", _L096),
        ),
    ),
    _ct_rival("lowdose_ct_esrgan", "ESRGAN"),
    _ct_rival("lowdose_ct_dit", "DiT, 1 step"),
    _ct_rival("lowdose_ct_sit", "SiT, 1 step"),
    Line(
        "MR, 6 % noise, single slices",
        "noise_mri_unet",
        Figure("mri-noise", (DEFAULT, "expert noise_mri_unet", "ours, sigma estimated"), "PSNR head", "", ("6 %",)),
        "input",
        ("BM3D, Rician-corrected", "NLM fast, Rician-corrected", "curvature flow", "BM3D", "NLM fast"),
        "magnitude images with visible noise",
        "quantitative maps, phase, noise below 2 %",
        keeps=(Figure("mri-lesions", (DEFAULT,), "signal 3 mm/20 %", "3 mm lesion {:.0%}", ("noise 6 %",)),),
    ),
    Line(
        "MR, 6 % noise, slices as close as pixels",
        "noise_mri_unet",
        Figure("mri-noise", (DEFAULT, "expert noise_mri_unet"), "PSNR head", "", ("stacks, 6 %",)),
        "input",
        ("BM3D, Rician-corrected", "NLM fast, Rician-corrected", "curvature flow", "BM3D", "NLM fast"),
        "3-D acquisitions: each slice is seen between its neighbours",
        "as above",
    ),
    Line(
        "MR, coarse x2 (brains)",
        "superres_mri_unet",
        Figure("mri-heads", ("U-Net",), "gain", "", ("brains x2",)),
        "zero-filled",
        ("cubic",),
        f"k-space was cut; {_BY_NAME}",
        "interpolated images; detail decides a diagnosis",
        keeps=(
            Figure(
                "mri-lesions",
                ("expert superres_mri_unet",),
                "signal 3 mm/20 %",
                "3 mm lesion {:.0%} -> {:.0%}",
                ("truncated x2",),
                "input",
            ),
        ),
        gate=False,
    ),
    Line(
        "MR, coarse x4 (brains)",
        "superres_mri_unet",
        Figure("mri-heads", ("U-Net",), "gain", "", ("brains x4",)),
        "zero-filled",
        ("cubic",),
        "as above",
        "as above",
        gate=False,
    ),
    Line(
        "MR, slices of 3 mm made thin",
        "superres_mri_unet",
        Figure("mri-lesions", ("expert superres_mri_unet",), "signal 3 mm/20 %", "", ("slices of 3",)),
        "cubic along slices",
        (),
        "`sasm thin`, for views across slices",
        "slices have gaps or unequal steps",
        unit="points",
        keeps=(Figure("mri-lesions", ("expert superres_mri_unet",), "invented", "{:.1f} invented", ("slices of 3",)),),
        gate=False,
    ),
    _mr_rival("superres_mri_esrgan", "ESRGAN"),
    _mr_rival("superres_mri_dit", "DiT, 1 step"),
    _mr_rival("superres_mri_sit", "SiT, 1 step"),
    Line(
        "photo, noise 25/255",
        "noise_photo_unet",
        Figure("photo-awgn", (DEFAULT, "expert noise_photo_unet", "ours, sigma estimated"), "PSNR", "", ("CBSD68 25",)),
        "input",
        ("NLM fast", f"BM3D{SUBSET}"),
        "photos with grain, any level",
        "grain is wanted; scans of prints",
        keeps=(Figure("no-harm", (DEFAULT,), "touched", "clean photos touched {:.0%}", ("PHOTO",)),),
    ),
    Line(
        "photo, noise of a camera",
        "noise_photo_unet",
        Figure("photo-real", (DEFAULT,), "PSNR", "", ("CC15",)),
        "input",
        ("NLM fast", "BM3D"),
        "high ISO, as it comes out of the camera",
        "the noise is faint: name the expert, the gate may leave it",
        keeps=(
            Figure(
                "photo-real", ("expert noise_photo_unet",), "PSNR", "by name {:.1f} -> {:.1f} dB", ("CC15",), "input"
            ),
        ),
    ),
    Line(
        "photo, noise 25/255",
        "noise_photo_ddpm",
        Figure("photo-ddpm", ("ours, 1 step",), "PSNR", "", ("CBSD68 25",)),
        "input",
        ("NLM fast", "noise_photo_unet"),
        "several plausible answers are wanted",
        "fidelity counts: the U-Net is better",
        gate=False,
    ),
    Line(
        "photo behind drops (real)",
        "raindrop_photo_unet",
        Figure(
            "raindrop-real", (DEFAULT, "expert raindrop_photo_unet"), "PSNR RGB", "", ("pair 0", "pair 1", "pair 183")
        ),
        "input",
        (),
        "drops on a window pane",
        "rain streaks, fog, drops over the whole view",
        keeps=(
            Figure(
                "raindrop-synth",
                (DEFAULT, "ours, whole pipeline"),
                "PSNR outside",
                "outside drops {:.1f} -> {:.1f} dB",
                before="input",
            ),
        ),
    ),
    Line(
        "photo, drops here, noise there",
        "gate_mobilenet",
        Figure("mixed", (DEFAULT,), "PSNR", ""),
        "input",
        (
            "expert raindrop_photo_unet",
            "expert noise_photo_unet",
            "hard gate (one expert per image)",
            "hard gate (argmax per pixel)",
        ),
        "always: it is the default",
        "the fault is known: name the expert",
        keeps=(
            Figure("no-harm", (DEFAULT,), "gain", "clean CT {:.1%} of contrast", ("CT",)),
            Figure("no-harm", (DEFAULT,), "gain", "clean MR {:.1%}", ("MR",)),
        ),
    ),
    Line(
        "photo with holes below 20 %",
        "enhance_photo_diffusion",
        Figure("inpaint", ("ours, 1 step",), "PSNR hole", "", ("strokes below 20 %",)),
        "input",
        ("membrane", "biharmonic"),
        "small holes, scratches",
        "large holes: what it draws is a guess",
        keeps=(Figure("inpaint", ("ours, 1 step",), "outside", "outside changed by {:.0f}", ("strokes below 20 %",)),),
        gate=False,
    ),
    Line(
        "photo made x2 larger",
        "enhance_photo_diffusion",
        Figure("superres-photo", ("ours, 1 step",), "PSNR RGB", "", ("x2",)),
        "bicubic",
        ("Lanczos", "bicubic, back-projected"),
        "photos without noise",
        "JPEG of low quality; medical images",
        keeps=(Figure("superres-photo", ("ours, 1 step",), "consistency", "given pixels to {:.3f} of 255", ("x2",)),),
        gate=False,
    ),
    Line(
        "feature distance after noise",
        "refine_photo_flow",
        Figure("refine", ("refined, 1 step",), "VGG19-n", "", ("noise 25",)),
        DEFAULT,
        ("grain alone",),
        "`--refine`: sharper to the eye",
        "pixels count; CT and MR (refused)",
        unit="%",
        keeps=(Figure("refine", ("refined, 1 step",), "gain", "{:+.2f} dB", ("noise 25",)),),
    ),
    Line(
        "classes of CIFAR-10",
        "cifar10_diffusion",
        Figure("cifar10", ("ours",), "clean", "", ("top-1 accuracy",)),
        "plain CNN",
        ("plain CNN, trained with noise",),
        "to study diffusion classifiers",
        "to classify: a plain CNN is better",
        unit="points",
        gate=False,
    ),
)
HEAD = (
    "| task | expert | gain | best peer, same run | keeps | s/image | use when | do not use when |\n"
    "|---|---|---|---|---|---:|---|---|"
)
NOTES = """- **gain**: over the image as it came; [95 % interval] of its mean, each image against itself before, where
  six or more were. Points: per cent of a lesion's signal over interpolation, or of accuracy over a plain CNN; %: change
  of a distance, smaller is better. Peers are methods of others, told the noise and tuned; for an expert that rivals a
  U-Net of the same task, that one, too.
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
        _best_peer(line, table, versions),
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
    they hold what the images differ in, before and after."""
    if line.unit == "%" or len(line.gain.levels) > 1:
        return ""
    metric = line.gain.metric if line.gain.metric == "gain" else Gain(line.gain.metric).name
    limits = row.interval(line.gain.levels[0], metric)
    if limits is None:
        return ""
    factor, places = (100, 1) if line.unit == "points" else (1, 2)
    return f" [{', '.join(f'{factor * limit:+.{places}f}' for limit in limits)}]"


def _best_peer(line: Line, table: Table, versions: Mapping[str, str]) -> str:
    """The peer with the largest gain; one that ran on a subset is compared with the input on that subset."""
    sign = -1 if line.unit == "%" else 1
    found = []
    for name in line.peers:
        suffix = SUBSET if name.endswith(SUBSET) else ""
        row, start = _row(table, (name,)), _row(table, (line.before + suffix,))
        if row is not None and start is not None:
            value, before = _value(row, line.gain), _value(start, line.gain)
            if math.isfinite(value) and math.isfinite(before):
                label = name + _mark(older([bundle_of(name)], table, versions))
                found.append((sign * (value - before), f"{label} {_gain(line.unit, value, before)}"))
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


def bundle_of(method: str) -> str:
    """The bundle that a row names, ``expert NAME, sigma given``; of another row what stands before the comma."""
    name = method.removeprefix("expert ").split(",")[0]
    return _NETWORKS.get(name, name)


def older(names: Iterable[str], table: Table, versions: Mapping[str, str]) -> dict[str, str]:
    """Bundle -> version that was measured, of those of which another one is installed.

    Args:
        names: bundles.
        table: with the versions at its time.
        versions: bundle -> installed version.
    """
    return {
        name: table.versions[name]
        for name in names
        if table.versions.get(name, versions.get(name)) != versions.get(name)
    }


def _mark(found: Mapping[str, str]) -> str:
    return f" ({min(found.values())})" if found else ""
