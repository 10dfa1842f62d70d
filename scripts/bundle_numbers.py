"""Write the numbers of bundles' READMEs from the JSON files of the protocols; ``tests/test_readme.py`` fails where
they differ.

python scripts/bundle_numbers.py
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_sasm.evaluation.measured import bundle_of, older
from monai_sasm.evaluation.report import BEGIN, END, installed_versions, replace_block, tables
from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.table import Table

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Column:
    """A metric.

    Args:
        head: as printed.
        metric: of the stored rows; ``n`` is the number of images.
        text: format.
        level: where it is read; else that of the line.
    """

    head: str
    metric: str
    text: str = ".2f"
    level: str | None = None


@dataclass(frozen=True)
class Line:
    """A method at a level, and the cells in front of its numbers."""

    protocol: str
    level: str
    method: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Numbers:
    """A table of a README.

    Args:
        head: of the cells in front.
        lines: in print order.
        columns: likewise.
        before, after: text around it.
    """

    head: tuple[str, ...]
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    before: str = ""
    after: str = ""


def _lines(protocol: str, levels: Mapping[str, str], methods: Mapping[str, str]) -> tuple[Line, ...]:
    """Every method at every level; row or level -> how it is called here, ``""``: a level without a cell."""
    return tuple(
        Line(protocol, level, method, (*([shown] if shown else []), label))
        for level, shown in levels.items()
        for method, label in methods.items()
    )


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _columns(text: str, *names: str) -> tuple[Column, ...]:
    return tuple(Column(name, name, text) for name in names)


_TEST, _B30F, _D45F = "L096 D45f (test)", "L192 B30f (validation)", "L192 D45f (validation)"
_CT_COLUMNS = (
    *_columns(".2f", "PSNR"),
    *_columns(".3f", "SSIM"),
    Column("bias HU", "bias"),
    *_columns(".1f", "VGG19-n"),
)
_DISCS = ("3 mm/14", "5 mm/7", "7 mm/5", "10 mm/3", "3 mm/40", "5 mm/-40")
_WEIGHTS = {
    "expert lowdose_ct_unet 0.1.0": "version 0.1.0",
    "expert lowdose_ct_unet": "this bundle",
    DEFAULT: DEFAULT,
    "expert lowdose_ct_unet 0.1.0, noise as full dose": "version 0.1.0, noise as full dose",
    "expert lowdose_ct_unet, noise as full dose": "this bundle, noise as full dose",
}
_MR_COLUMNS = (
    Column("PSNR x2", "PSNR", level="x2"),
    Column("x4", "PSNR", level="x4"),
    Column("inside x2", "PSNR inside", level="x2"),
    Column("x4", "PSNR inside", level="x4"),
    Column("VGG19-n x2", "VGG19-n", ".1f", "x2"),
    Column("x4", "VGG19-n", ".1f", "x4"),
    Column("Dice x4", "Dice", ".3f", "x4"),
    Column("recovered x4", "recovered", level="x4"),
)
_HEAD_COLUMNS = tuple(
    Column(level, "gain", "+.2f", level) for level in ("brains x2", "brains x4", "heads x2", "heads x4")
)
_HEADS = "Protocol `mri-heads`: whole brains (ds002748) and a noisy head (ds000011) that were not trained on:"
_ON_HEADS = ("U-Net", "ESRGAN", "DiT, 1 step", "SiT, 1 step")
_NOTHING_TO_RECOVER = (
    "At x2 the Dice of the zero-filled volumes already equals that of the clean ones: there is nothing to recover."
)


def _steps(network: str, counts: Sequence[int] = (1, 2, 4, 10)) -> dict[str, str]:
    """Rows of a diffusion model over its numbers of steps."""
    words = [f"{count} step{'s' * (count > 1)}" for count in counts]
    return {f"{network}, {count}": f"this bundle, {count}" for count in words}


def _lowdose(methods: Mapping[str, str]) -> tuple[Numbers, ...]:
    rows = {"input": "input", "expert lowdose_ct_unet": "U-Net", **methods}
    return (Numbers(("data", "method"), _lines("ct-lowdose", _same(_TEST), rows), _CT_COLUMNS),)


def _superres(methods: Mapping[str, str]) -> tuple[Numbers, ...]:
    lines = _lines("mri-superres", {"x4": ""}, {**_same("zero-filled", "cubic"), **methods})
    heads = {**_same("cubic"), **{method: label for method, label in methods.items() if method in _ON_HEADS}}
    return (
        Numbers(("volumes",), lines, _MR_COLUMNS, after=_NOTHING_TO_RECOVER),
        Numbers(("dB over zero-filled",), _lines("mri-heads", {"brains x2": ""}, heads), _HEAD_COLUMNS, _HEADS),
    )


def _experts(bundle: str, *others: str) -> dict[str, str]:
    known = {f"expert {bundle}": "expert by name", f"expert {bundle}, sigma given": "expert, sigma given"}
    return {**_same("input", *others), **known, DEFAULT: DEFAULT}


BUNDLES = {
    "cifar10_diffusion": (
        Numbers(
            ("method",),
            _lines(
                "cifar10",
                {"top-1 accuracy": ""},
                {
                    "ours": "this bundle, told the noise",
                    "plain CNN": "plain CNN, trained clean",
                    "plain CNN, trained with noise": "plain CNN, trained with noise",
                },
            ),
            (
                *_columns(".3f", "all, clean", "clean"),
                Column("noise 0.1", "0.1", ".3f"),
                *_columns(".3f", *("0.2", "0.3", "0.5")),
            ),
            before="Share of images with the right class; 1000 test images under noise, all 10,000 clean:",
            after="It falls more slowly than a CNN that never saw noise and is ahead of it from 0.1 on; a CNN that was "
            "trained with\nnoise is better than both.",
        ),
    ),
    "enhance_photo_diffusion": (
        Numbers(
            ("enlarged", "method"),
            _lines(
                "superres-photo",
                _same("x2", "x4"),
                _same("bicubic", "Lanczos", "bicubic, back-projected", "ours, 1 step", "ours, latent, 1 step"),
            ),
            (
                *_columns(".2f", "PSNR RGB"),
                *_columns(".3f", "SSIM Y", "consistency"),
                Column("largest", "consistency max"),
            ),
            before="CBSD68, 8-bit results, dB; consistency: how far enlarged photos, downsampled again, are from their "
            "input in the mean,\nand at most in a photo, grey levels of 255.",
        ),
        Numbers(
            ("holes", "method"),
            _lines(
                "inpaint",
                _same("strokes below 20 %", "strokes 20 to 40 %", "strokes above 40 %", "block"),
                _same("input", "membrane", "biharmonic", "ours, 1 step", "ours, latent, 1 step"),
            ),
            (*_columns(".2f", "PSNR hole"), *_columns(".3f", "SSIM hole"), *_columns(".1f", "VGG19-n")),
            before="20 photos of BSDS500 `val`; the block has 64 x 64 pixels. Known pixels differ by nothing.",
        ),
        Numbers(
            ("method",),
            _lines(
                "superres-photo",
                {"x4, 6 photos": ""},
                _same(
                    "bicubic",
                    "bicubic, back-projected",
                    "ours, 1 step",
                    *(f"ours, {count} steps" for count in (2, 4, 10, 50)),
                ),
            ),
            (*_columns(".2f", "PSNR RGB"), *_columns(".3f", "gradient"), *_columns(".1f", "VGG19-n")),
            before="More steps, x4, 6 photos; VGG19-n is a feature distance, smaller is better:",
        ),
    ),
    "gate_mobilenet": (
        Numbers(
            ("images",),
            _lines(
                "gate",
                {"": ""},
                _same(
                    *(f"photo, {kind}" for kind in ("clean", "noise", "rendered drops", "real drops")),
                    *(f"CT, {dose} dose" for dose in ("full", "quarter")),
                    *(f"MR, {kind}" for kind in ("clean", "noise 3 %", "noise 6 %", "noise 12 %")),
                    "all",
                ),
            ),
            (*_columns(".3f", "accuracy", "pixel accuracy", "ECE"), Column("n", "n", "d")),
        ),
    ),
    "lowdose_ct_dit": _lowdose(_steps("DiT")),
    "lowdose_ct_esrgan": _lowdose({"ESRGAN": "this bundle"}),
    "lowdose_ct_sit": _lowdose(_steps("SiT")),
    "lowdose_ct_unet": (
        Numbers(
            ("weights",),
            (
                Line("ct-lesions", "quarter", "input", ("input, quarter dose",)),
                Line("ct-lesions", "full", "input", ("full dose",)),
                *_lines("ct-lesions", {"quarter": ""}, _WEIGHTS),
            ),
            (
                *(Column(f"{disc} HU", f"gain {disc}", ".3f") for disc in _DISCS),
                *(Column("noise HU", "noise", ".1f"), Column("NPS mean /cm", "NPS mean"), Column("PSNR", "PSNR")),
                Column("strength", "strength"),
            ),
            before="Protocol `ct-lesions`: patient L096, never trained on but looked at to choose weights, ten slices "
            "at quarter dose;\ncontrast gain of discs (1 is kept, 0 is erased) ± standard error over slices, noise and "
            "grain in uniform soft tissue;\nby name, without the gate, unless it says so:",
        ),
        Numbers(
            ("data", "method"),
            _lines(
                "ct-lowdose",
                _same(_TEST, _B30F, _D45F),
                {**_same("input", "BM3D"), "expert lowdose_ct_unet": "expert by name", DEFAULT: DEFAULT},
            ),
            (
                *_columns(".2f", "PSNR"),
                *_columns(".3f", "SSIM"),
                *(Column("RMSE HU", "RMSE"), Column("bias HU", "bias")),
            ),
            before="Protocol `ct-lowdose`: patient L096, never trained on: 10 pairs, sharp kernel; PSNR and SSIM in "
            "[-160, 240] HU, range 400;\nmean HU bias:",
        ),
    ),
    "noise_mri_unet": (
        Numbers(
            ("noise", "method"),
            _lines(
                "mri-noise",
                _same(*(f"{stack}{level} %" for stack in ("", "stacks, ") for level in (3, 6, 12))),
                _experts("noise_mri_unet", "BM3D", "BM3D, Rician-corrected"),
            ),
            (*_columns(".2f", "PSNR", "PSNR head"), *_columns(".3f", "SSIM")),
        ),
    ),
    "noise_photo_ddpm": (
        Numbers(
            ("method",),
            _lines(
                "photo-ddpm",
                {"CBSD68 25": ""},
                {
                    **_same("input", "NLM fast"),
                    "expert noise_photo_unet": "noise_photo_unet",
                    "ours, 1 step": "this bundle, 1 step",
                },
            ),
            (
                *_columns(".2f", "PSNR", "PSNR 8-bit"),
                *_columns(".3f", "SSIM", "gradient"),
                *_columns(".2f", "delta E", "colour shift"),
            ),
            before="All 68 photos:",
        ),
        Numbers(
            ("method",),
            _lines(
                "photo-ddpm",
                {"CBSD68 25, 10 crops": ""},
                {
                    **_same("input", "NLM fast"),
                    "expert noise_photo_unet": "noise_photo_unet",
                    "ours, 1 step": "this bundle, 1 step",
                    "ours, 1 step, sigma estimated": "this bundle, 1 step, sigma estimated",
                    **{f"ours, {count} steps": f"this bundle, {count} steps" for count in (2, 4, 10, 25, 50)},
                    "ours, 1 step, not pinned": "this bundle, 1 step, not pinned",
                    "ours, 10 steps, not pinned": "this bundle, 10 steps, not pinned",
                    **{f"ours, {n} steps, eta 1": f"this bundle, {n} steps, eta 1" for n in (4, 10, 50)},
                },
            ),
            (
                *_columns(".2f", "PSNR"),
                *_columns(".3f", "SSIM", "gradient"),
                *_columns(".1f", "VGG19-n"),
                *_columns(".2f", "delta E", "colour shift", "seconds"),
            ),
            before="The central 128 x 128 pixels of the first 10 photos, over steps:",
        ),
    ),
    "noise_photo_unet": (
        Numbers(
            ("data, sigma", "method"),
            _lines(
                "photo-awgn",
                _same(*(f"{data} {sigma}" for data in ("CBSD68", "Set12") for sigma in (15, 25, 50))),
                _experts("noise_photo_unet"),
            ),
            (*_columns(".2f", "PSNR", "PSNR 8-bit"), *_columns(".3f", "SSIM")),
        ),
    ),
    "raindrop_photo_unet": (
        Numbers(
            ("data", "method"),
            tuple(
                line
                for protocol, levels in (
                    ("raindrop-real", _same("pair 0", "pair 183", "pair 1")),
                    ("raindrop-synth", {"": "synthetic"}),
                )
                for line in _lines(
                    protocol,
                    levels,
                    {"input": "input", "expert raindrop_photo_unet": "expert by name", DEFAULT: DEFAULT},
                )
            ),
            tuple(
                Column(name, name, text)
                for colour in ("RGB", "Y")
                for name, text in ((f"PSNR {colour}", ".2f"), (f"SSIM {colour}", ".3f"))
            ),
        ),
    ),
    "refine_photo_flow": (
        Numbers(
            ("fault", "method"),
            _lines(
                "refine",
                _same("noise 25", "raindrops", "regions"),
                _same(
                    DEFAULT,
                    *(f"refined, {how}" for how in ("1 step", "strength 0.7", "source not shown", "with grain")),
                    "grain alone",
                ),
            ),
            (
                Column("PSNR, dB", "PSNR"),
                *_columns(".3f", "SSIM"),
                *_columns(".1f", "VGG19-n change, %", "MobileNetV2 change, %"),
            ),
        ),
    ),
    "superres_mri_dit": _superres({"U-Net": "U-Net", **_steps("DiT")}),
    "superres_mri_esrgan": _superres({"ESRGAN": "this bundle", **_same("U-Net, single slice", "U-Net")}),
    "superres_mri_sit": _superres({"U-Net": "U-Net", **_steps("SiT")}),
    "superres_mri_unet": _superres(
        {"U-Net": "this bundle", "U-Net, single slice": "`single_slice.yaml`", "Restormer": "`restormer.yaml`"}
    ),
}
"""Bundle -> the tables of its README."""


def block(bundle: str, results: Path = ROOT / "docs" / "results") -> str:
    """What stands between the marks, Markdown."""
    known, versions = tables(results), installed_versions()
    parts = []
    for numbers in BUNDLES[bundle]:
        heads = [*numbers.head, *(column.head for column in numbers.columns)]
        rule = "|---" * len(numbers.head) + "|---:" * len(numbers.columns) + "|"
        lines = [
            row(line, numbers.columns, known[line.protocol], versions=versions, owner=bundle) for line in numbers.lines
        ]
        texts = [numbers.before, "\n".join([f"| {' | '.join(heads)} |", rule, *lines]), numbers.after]
        parts += [text for text in texts if text]
    protocols = sorted({f"`{line.protocol}`" for numbers in BUNDLES[bundle] for line in numbers.lines})
    parts.append(f"Written from {' and '.join(protocols)}; definitions and the other rows are in `docs/RESULTS.md`.")
    return f"{BEGIN}\n" + "\n\n".join(parts) + f"\n{END}"


def row(line: Line, columns: Sequence[Column], table: Table, *, versions: Mapping[str, str], owner: str) -> str:
    """A line; a version stands behind weights that are not those installed."""
    found = [one for one in table.rows if one.method == line.method and line.level in one.scores]
    if not found:
        raise KeyError(f"{line.protocol} has no {line.method!r} at {line.level!r}")
    chosen, cells = found[0], []
    for column in columns:
        level = line.level if column.level is None else column.level
        value = chosen.n.get(level) if column.metric == "n" else chosen.scores[level].get(column.metric)
        if column.metric == "seconds":
            value = chosen.seconds
        low, high = chosen.spreads.get(level, {}).get(column.metric) or (0.0, 0.0)
        half = f"{(high - low) / 2:.3f}"
        spread = f" ± {half}" if float(half) else ""
        cells.append("-" if value is None or not math.isfinite(value) else f"{value:{column.text}}{spread}")
    *before, label = line.cells
    names = [owner if label.startswith("this bundle") or line.method == DEFAULT else bundle_of(line.method)]
    age = "".join(f" {version}" for version in older(names, table, versions).values())
    return f"| {' | '.join([*before, label + age, *cells])} |"


def main() -> None:
    """Replace the block of each bundle's README."""
    for bundle in BUNDLES:
        replace_block(ROOT / "bundles" / bundle / "docs" / "README.md", block(bundle))


if __name__ == "__main__":
    main()
