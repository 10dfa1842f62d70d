"""What the protocols of CT noise share: cases in HU, metrics in the abdominal window, noise texture, one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures, peers
from monai_sasm.evaluation.contenders import Contender, contender_methods
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import data_hash
from monai_sasm.evaluation.judged import hallucinating
from monai_sasm.evaluation.judged_figures import quality_against_time
from monai_sasm.evaluation.metrics import (
    CT_WINDOW,
    bias,
    edge_width,
    gradient_ratio,
    noise_power_spectrum,
    psnr,
    rmse,
    ssim,
    windowed,
)
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.restoring import our_methods
from monai_sasm.evaluation.scoring import Case, Compared, Gain, Image, Method, score
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.types import Modality

EXPERT = "lowdose_ct_unet"
FAMILY = "lowdose_ct"
RIVALS = ("esrgan", "dit", "sit")  # beside the U-Net, which is the expert of the pipeline
OWN_ROW = f"expert {EXPERT}"
REFERENCE_ROW = "full dose (reference)"
SHOWN_STEPS = (0, 1)  # of the contenders in the figure of slices
FEATURE_CROP = 192  # pixels; features are compared in the middle of a slice
COMPARED = Compared(OWN_ROW, ("PSNR", "SSIM", "VGG19-n", "LPIPS"))
GAIN = Gain("PSNR")
HU_SCALE = 1000.0  # peers get images of order 1
RANGE = CT_WINDOW[1] - CT_WINDOW[0]
BODY = -500.0  # HU; above it is patient (or table), below it air and lung
PATCH, PATCHES, BINS = 24, 6, 10  # regions for the noise power spectrum: pixels, at most so many, rings
UNIFORM = 12.0  # HU; a region whose smoothed values vary more holds anatomy
PEERS = ("BM3D", "NLM fast", "TV", "bilateral")
STRENGTHS = {  # CT noise is coloured by the kernel, so the white-noise strength of BM3D is searched, too
    "BM3D": (1.0, 1.4, 2.0, 2.8),
    "NLM fast": (0.5, 0.7, 1.0, 1.4, 2.0),
}
DEFINITIONS = {
    "PSNR": "dB, images clipped to [-160, 240] HU, data range 400, per slice, mean",
    "SSIM": "same window and range, Gaussian 11x11, sigma 1.5",
    "RMSE": "HU, same window",
    "bias": f"HU, mean of restored minus full dose over pixels above {BODY:g} HU of the full dose, not clipped",
    "edge": "mm, median 10-90 % width of error functions fitted across the 200 strongest edges of the full-dose slice",
    "gradient": "mean gradient magnitude in the window over that of the full dose; below 1: smoother than full dose",
    "noise": f"HU, standard deviation in up to {PATCHES} uniform soft-tissue regions of {PATCH}x{PATCH} pixels per "
    "slice",
    "p (U-Net)": f"two-sided Wilcoxon signed-rank test against {OWN_ROW} over patients; [low, high] are 95 % bootstrap "
    "intervals of the mean, patients drawn with all their slices",
    "M params": "millions of trained weights",
    "NPS mean": "cycles/mm, power-weighted mean frequency of the noise power spectrum there; lower: coarser, "
    "blotchier grain",
    **GAIN.definition,
}


@dataclass(frozen=True)
class CtStudy:
    """What a protocol of CT noise measures.

    Args:
        protocol: name of the table.
        cases: see :func:`ct_case`.
        tuning: one case per level, on which peers are tuned.
        used: files, for the data hash.
        flags: conditions of the protocol.
        bm3d: images per level that BM3D is run on; ``None`` for all.
        contenders: further networks, with feature distances.
    """

    protocol: str
    cases: Sequence[Case]
    tuning: Sequence[Case]
    used: Iterable[Path]
    flags: tuple[str, ...]
    bm3d: int | None = None
    contenders: Sequence[Contender] = ()


def ct_case(name: str, level: str, *, full: Image, degraded: Image, spacing: float, sigma: float) -> Case:
    """A slice ``(1, H, W)`` in HU with the uniform regions of its full dose; ``spacing`` in mm, ``sigma`` in HU; its
    name begins with that of the patient, ``L096_D45f_i021``."""
    facts = {"spacing": spacing, "regions": uniform_regions(full[0])}
    return Case(name, level, clean=full, degraded=degraded, sigma=sigma, facts=facts, patient=name.split("_")[0])


def ct_table(context: Context, study: CtStudy) -> Table:
    """Rows for full dose, input, peers, expert, default pipeline and contenders; slices, spectra, quality over time."""
    cases, protocol, rivals = study.cases, study.protocol, study.contenders
    distances = PerceptualDistances() if rivals else None
    methods = [Method(REFERENCE_ROW, lambda case: case.clean), Method("input", lambda case: case.degraded)]
    if context.peers:
        first = study.bm3d if study.bm3d is not None and study.bm3d < len(cases) else None
        methods += peers.methods(
            PEERS, study.tuning, context.cache, scale=HU_SCALE, strengths=STRENGTHS, quality=window_psnr, first=first
        )
    methods += our_methods(context.restorer, Modality.CT, EXPERT) + contender_methods(
        context.restorer, Modality.CT, rivals
    )
    rows = score(
        protocol,
        cases,
        methods,
        measure=measure if distances is None else _with_features(distances),
        cache=context.cache,
        subset_name="BM3D subset",
        compared=COMPARED if rivals else None,
        gain=GAIN,
    )
    rows, spectra = _without_spectra(rows)
    rows = _with_parameters(rows, rivals)
    level = cases[0].level
    frequency = [(k + 0.5) * 0.5 / cases[0].facts["spacing"] / BINS for k in range(BINS)]
    hidden = {REFERENCE_ROW} | {rival.name for rival in rivals if rival.steps not in SHOWN_STEPS}
    path = context.output / f"{protocol}.png"
    pictures = [
        figures.comparison(
            path,
            cases[:3][-1],
            [method for method in methods if method.name not in hidden],
            quality=window_psnr,
            window=CT_WINDOW,
            error=0.3,
        ),
        figures.curves(
            path.with_name(f"{protocol}-nps.png"),
            {name: (frequency, power[level]) for name, power in spectra.items() if level in power},
            labels=("cycles/mm", f"NPS, HU² mm², {level}"),
            log=True,
        ),
    ]
    if rivals:
        compared = [name for name in ("PSNR", "VGG19-n", "LPIPS") if name in rows[0].scores[level]]
        pictures.append(
            quality_against_time(path.with_name(f"{protocol}-time.png"), rows, metrics=compared, before="input")
        )
    return Table(
        protocol,
        data_hash=data_hash(study.used),
        definitions=DEFINITIONS | (distances.definitions() if distances is not None else {}),
        rows=tuple(rows),
        flags=(
            *context.limited(),
            *study.flags,
            *hallucinating(rows, [rival.name for rival in rivals if rival.sampled], OWN_ROW),
        ),
        figures=tuple(pictures),
        details={"noise_power_spectrum": {"frequency_per_mm": frequency, "power": spectra}},
    )


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS`; the spectrum's bins under names that begin with an underscore."""
    clean, restored = windowed(case.clean), windowed(image)
    spacing = case.facts["spacing"]
    return {
        "PSNR": psnr(clean, restored, RANGE),
        "SSIM": ssim(clean, restored, RANGE),
        "RMSE": rmse(clean, restored),
        "bias": bias(case.clean, image, case.clean > BODY),
        "edge": edge_width(image[0], case.clean[0], spacing),
        "gradient": gradient_ratio(clean, restored),
        **_texture(image, case),
    }


def window_psnr(case: Case, image: Image) -> float:
    """PSNR in the abdominal window, dB."""
    return psnr(windowed(case.clean), windowed(image), RANGE)


def uniform_regions(hu: Image, count: int = PATCHES, side: int = PATCH) -> list[tuple[slice, slice]]:
    """The most uniform soft-tissue squares of a slice ``(H, W)``, not overlapping, judged after smoothing; may be
    none.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(hu.astype(np.float64), 3)
    corners = [(y, x) for y in range(0, hu.shape[0] - side + 1, 8) for x in range(0, hu.shape[1] - side + 1, 8)]
    scored = []
    for top, left in corners:
        part = smooth[top : top + side, left : left + side]
        if part.min() > -50 and part.max() < 200 and part.std() < UNIFORM:
            scored.append((float(part.std()), top, left))
    chosen: list[tuple[int, int]] = []
    for _, top, left in sorted(scored):
        if all(abs(top - y) >= side or abs(left - x) >= side for y, x in chosen):
            chosen.append((top, left))
    return [(slice(y, y + side), slice(x, x + side)) for y, x in chosen[:count]]


def region_patches(case: Case, image: Image) -> Image:
    """The uniform regions of ``(1, H, W)`` as a stack ``(N, side, side)``."""
    return np.stack([image[0][place] for place in case.facts["regions"]])


def spectral_mean(frequency: Image, power: Image) -> float:
    """Power-weighted mean frequency."""
    return float((frequency * power).sum() / power.sum())


def _with_features(distances: PerceptualDistances) -> Callable[[Case, Image], dict[str, float]]:
    """:func:`measure`, and feature distances in the window, in the middle of the slice."""

    def measured(case: Case, image: Image) -> dict[str, float]:
        middle = (
            slice(None),
            *(slice(max(0, (n - FEATURE_CROP) // 2), (n + FEATURE_CROP) // 2) for n in image.shape[1:]),
        )
        clean, restored = ((windowed(part)[middle] - CT_WINDOW[0]) / RANGE for part in (case.clean, image))
        return measure(case, image) | distances(clean, restored)

    return measured


def _with_parameters(rows: Sequence[Row], rivals: Sequence[Contender]) -> list[Row]:
    """Rows of the contenders with their numbers of weights."""
    counts = {rival.name: {"M params": rival.parameters / 1e6} for rival in rivals}
    return [
        replace(row, scores={level: {**scores, **counts.get(row.method, {})} for level, scores in row.scores.items()})
        for row in rows
    ]


def _texture(image: Image, case: Case) -> dict[str, float]:
    """Noise level and spectrum in the uniform regions; NaN where a slice has none."""
    names = [f"_nps{k:02d}" for k in range(BINS)]
    if not case.facts["regions"]:
        return dict.fromkeys(["noise", "NPS mean", *names], float("nan"))
    patches = region_patches(case, image)
    frequency, power = noise_power_spectrum(patches, case.facts["spacing"], BINS)
    bins = dict(zip(names, map(float, power), strict=True))
    return {"noise": float(patches.std(axis=(1, 2)).mean()), "NPS mean": spectral_mean(frequency, power), **bins}


def _without_spectra(rows: Sequence[Row]) -> tuple[list[Row], dict[str, dict[str, list[float]]]]:
    """Rows without the spectrum's bins, and the bins as method -> level -> values."""

    def part(row: Row, *, spectrum: bool) -> dict[str, dict[str, float]]:
        return {
            level: {name: value for name, value in scores.items() if name.startswith("_") == spectrum}
            for level, scores in row.scores.items()
        }

    spectra = {
        row.method: {level: list(bins.values()) for level, bins in part(row, spectrum=True).items()} for row in rows
    }
    return [replace(row, scores=part(row, spectrum=False)) for row in rows], spectra
