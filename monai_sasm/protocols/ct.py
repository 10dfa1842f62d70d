"""``ct-lowdose`` (real Mayo pairs) and ``ct-simulated`` (sinogram noise on full-dose slices)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures
from monai_sasm.evaluation.contenders import Contender, contenders
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import ct_pairs, data_hash, files
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
from monai_sasm.evaluation.scoring import Case, Compared, Image, Measure, Method, batch_shape, score
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.protocols import peers

EXPERT = "lowdose_ct_unet"
FAMILY = "lowdose_ct"
CONTENDERS = ("esrgan", "dit", "sit")  # beside the U-Net, which is "ours"
SHOWN_STEPS = (0, 1, 10)  # of the contenders in the figure of slices
FEATURE_CROP = 192  # pixels; features are compared in the middle of a slice
COMPARED = Compared("ours", ("PSNR", "SSIM", "VGG19-n", "LPIPS"))
HU_PER_UNIT = 1000.0  # the experts' working scale
RANGE = CT_WINDOW[1] - CT_WINDOW[0]
BODY = -500.0  # HU; above it is patient (or table), below it air and lung
VALIDATION_STEMS = ("L192_B30f_i078", "L192_B30f_i142", "L192_D45f_i076")  # held out of training
TUNING_STEMS = {"B30f": "L143_B30f_i115", "D45f": "L143_D45f_i106"}  # peers are tuned here
DOSES = {"dose 1/2": 0.5, "dose 1/4": 0.25, "dose 1/10": 0.1}
PATCH, PATCHES, BINS = 24, 6, 10  # regions for the noise power spectrum: pixels, at most so many, rings
UNIFORM = 12.0  # HU; a region whose smoothed values vary more holds anatomy
PEERS = ("BM3D", "NLM fast", "TV", "bilateral")
BM3D_SIMULATED = 4  # slices per dose
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
    "p (U-Net)": "two-sided Wilcoxon signed-rank test against ours over slices; [low, high] are 95 % bootstrap "
    "intervals of the mean over slices, which are all of one patient",
    "M params": "millions of trained weights",
    "NPS mean": "cycles/mm, power-weighted mean frequency of the noise power spectrum there; lower: coarser, "
    "blotchier grain",
}


def run_real(context: Context) -> Table:
    """Quarter dose against full dose: ten slices of the test patient L096, and the validation slices of L192 per
    kernel.
    """
    root = context.data / "ct_ldct_pairs"
    test, validation = root / "L096_dicom", root / "L192_nifti"
    cases = [_case("L096 D45f (test)", *pair) for pair in ct_pairs(test, limit=context.limit)]
    cases += [
        _case(f"L192 {pair[0].split('_')[1]} (validation)", *pair)
        for pair in ct_pairs(validation)
        if pair[0] in VALIDATION_STEMS
    ]
    tuning = [pair for pair in ct_pairs(root / "L143_nifti") if pair[0] in TUNING_STEMS.values()]
    tuned = [_case(level, *_tuning_pair(tuning, level)) for level in dict.fromkeys(case.level for case in cases)]
    used = [path for kind in ("full", "quarter") for path in files(test / kind, limit=context.limit)]
    used += [
        path for kind in ("full", "quarter") for path in files(validation / kind) if path.name[:14] in VALIDATION_STEMS
    ]
    rivals, missing = contenders(context, FAMILY, CONTENDERS)
    flags = (
        "peers are told the standard deviation of (quarter - full dose) inside the body; ours estimates the noise "
        "itself",
        "L143 and the other slices of L192 are training data; L096 was not seen",
        "a RED-CNN trained by others on far more of this data gives 24.48 dB, bias 3.9 HU on the L096 slices "
        "(measured once, not in "
        "this run); published RED-CNN on L506 (other patient): input 29.25, result 32.7 to 32.9 dB",
        *missing,
    )
    distances = PerceptualDistances()
    return _table(context, "ct-lowdose", cases, tuned, used, flags, len(cases), rivals, distances)


def run_simulated(context: Context) -> Table:
    """Doses 1/2, 1/4 and 1/10 simulated in the sinogram from the full-dose slices of L096."""
    root = context.data / "ct_ldct_pairs"
    full = [(name, hu, spacing) for name, hu, _, spacing in ct_pairs(root / "L096_dicom", limit=context.limit)]
    tuning = [
        (name, hu, spacing) for name, hu, _, spacing in ct_pairs(root / "L143_nifti") if name == TUNING_STEMS["D45f"]
    ]
    flags = (
        "noise: monai_sasm.degradations.low_dose_ct.LowDoseCt, sharp kernel, seed = number of the slice; the "
        "reference is the "
        "full-dose slice with its own noise",
        "peers are told the simulation's own noise level (median over the body); ours estimates it",
        f"BM3D runs on the first {BM3D_SIMULATED} slices of each dose",
    )
    return _table(
        context, "ct-simulated", _simulated(full), _simulated(tuning),
        files(root / "L096_dicom" / "full", limit=context.limit), flags, bm3d=BM3D_SIMULATED,
    )  # fmt: skip


def _table(
    context: Context,
    protocol: str,
    cases: Sequence[Case],
    tuning: Sequence[Case],
    used: Iterable[Path],
    flags: tuple[str, ...],
    bm3d: int,
    rivals: Sequence[Contender] = (),
    distances: PerceptualDistances | None = None,
) -> Table:
    methods = [Method("full dose (reference)", lambda case: case.clean), Method("input", lambda case: case.degraded)]
    if context.peers:
        methods += peers.methods(
            PEERS, tuning, context.kept, scale=HU_PER_UNIT, strengths=STRENGTHS, score=_window_psnr,
            first=bm3d if bm3d < len(cases) else None,
        )  # fmt: skip
    methods.append(Method("ours", ours(context)))
    methods += [Method(rival.name, _corrected(rival.restore)) for rival in rivals]
    taken = measure if distances is None else _with_features(distances)
    rows = score(protocol, cases, methods, taken, context.kept, "BM3D subset", COMPARED if rivals else None)
    rows, spectra = _without_spectra(rows)
    rows = _with_parameters(rows, rivals)
    unshown = {"full dose (reference)"} | {rival.name for rival in rivals if rival.steps not in SHOWN_STEPS}
    shown = [method for method in methods if method.name not in unshown]
    pictures = [
        figures.comparison(
            context.output / f"{protocol}.png",
            cases[min(2, len(cases) - 1)],
            shown,
            _window_psnr,
            window=CT_WINDOW,
            error=0.3,
        )
    ]
    level = cases[0].level
    frequency = [(k + 0.5) * 0.5 / cases[0].facts["spacing"] / BINS for k in range(BINS)]
    lines = {
        name: (np.array(frequency), np.array(levels[level])) for name, levels in spectra.items() if level in levels
    }
    pictures.append(
        figures.curves(context.output / f"{protocol}-nps.png", lines, "cycles/mm", f"NPS, HU² mm², {level}", log=True)
    )
    if rivals:
        compared = [name for name in ("PSNR", "VGG19-n", "LPIPS") if name in rows[0].scores[level]]
        pictures.append(quality_against_time(context.output / f"{protocol}-time.png", rows, compared, "input"))
    flags = (*flags, *hallucinating(rows, [rival.name for rival in rivals if rival.sampled], "ours"))
    details = {"noise_power_spectrum": {"frequency_per_mm": frequency, "power": spectra}}
    definitions = DEFINITIONS | (distances.definitions() if distances is not None else {})
    return Table(
        protocol, data_hash(used), definitions, tuple(rows), (*context.limited(), *flags), tuple(pictures), details
    )


def ours(context: Context) -> Callable[[Case], Image]:
    """The low-dose expert on HU images, noise estimated from the image."""
    expert = context.expert(EXPERT)
    return _corrected(lambda working: expert(working, None))


def _corrected(expert: Callable[[Image], Image]) -> Callable[[Case], Image]:
    """Add the correction of an expert in working scale to a slice in HU, which keeps its digits."""

    def restore(case: Case) -> Image:
        working = (case.degraded / HU_PER_UNIT).astype(np.float32)
        return (case.degraded + HU_PER_UNIT * (expert(working) - working)).astype(np.float32)

    return restore


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS`; the spectrum's bins under names that begin with an underscore."""
    clean, seen = windowed(case.clean), windowed(image)
    spacing = case.facts["spacing"]
    texture = _texture(image, case)
    return {
        "PSNR": psnr(clean, seen, RANGE),
        "SSIM": ssim(clean, seen, RANGE),
        "RMSE": rmse(clean, seen),
        "bias": bias(case.clean, image, case.clean > BODY),
        "edge": edge_width(image[0], case.clean[0], spacing),
        "gradient": gradient_ratio(clean, seen),
        **texture,
    }


def _with_features(distances: PerceptualDistances) -> Measure:
    """:func:`measure`, and feature distances in the window, in the middle of the slice."""

    def measured(case: Case, image: Image) -> dict[str, float]:
        middle = (
            slice(None),
            *(slice(max(0, (n - FEATURE_CROP) // 2), (n + FEATURE_CROP) // 2) for n in image.shape[1:]),
        )
        clean, seen = ((windowed(part)[middle] - CT_WINDOW[0]) / RANGE for part in (case.clean, image))
        return measure(case, image) | distances(clean, seen)

    return measured


def _with_parameters(rows: Sequence[Row], rivals: Sequence[Contender]) -> list[Row]:
    """Rows of the contenders with their numbers of weights."""
    counts = {rival.name: rival.parameters / 1e6 for rival in rivals}
    return [
        replace(row, scores={level: {**scores, "M params": counts[row.method]} for level, scores in row.scores.items()})
        if row.method in counts
        else row
        for row in rows
    ]


def _texture(image: Image, case: Case) -> dict[str, float]:
    """Noise level and spectrum in the uniform regions; NaN where a slice has none."""
    regions, spacing = case.facts["regions"], case.facts["spacing"]
    if not regions:
        return dict.fromkeys(["noise", "NPS mean", *(f"_nps{k:02d}" for k in range(BINS))], float("nan"))
    patches = np.stack([image[0][place] for place in regions])
    frequency, power = noise_power_spectrum(patches, spacing, BINS)
    bins = {f"_nps{k:02d}": float(value) for k, value in enumerate(power)}
    mean = float((frequency * power).sum() / power.sum())
    return {"noise": float(np.mean([patch.std() for patch in patches])), "NPS mean": mean, **bins}


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


def _window_psnr(case: Case, image: Image) -> float:
    return psnr(windowed(case.clean), windowed(image), RANGE)


def _case(level: str, name: str, full: Image, quarter: Image, spacing: float) -> Case:
    difference = (quarter - full)[full > BODY]
    return Case(
        name, level, full, quarter, float(difference.std()), {"spacing": spacing, "regions": uniform_regions(full[0])}
    )


def _tuning_pair(pairs: Sequence[tuple[str, Image, Image, float]], level: str) -> tuple[str, Image, Image, float]:
    stem = next(stem for kernel, stem in TUNING_STEMS.items() if kernel in level)
    return next(pair for pair in pairs if pair[0] == stem)


def _simulated(slices: Sequence[tuple[str, Image, float]]) -> list[Case]:
    import torch

    from monai_sasm.degradations.low_dose_ct import LowDoseCt

    cases = []
    for level, dose in DOSES.items():
        for number, (name, hu, spacing) in enumerate(slices):
            model = LowDoseCt(spacing=spacing, dose=(dose, dose), kernel="sharp")
            clean = torch.from_numpy(hu)[None]
            params = model.draw(batch_shape(clean), torch.Generator().manual_seed(number))
            noisy = model.apply(clean, params)[0].numpy()
            sigma = float(np.median(model.sigma(clean, params)[0].numpy()[hu > BODY]))
            cases.append(Case(name, level, hu, noisy, sigma, {"spacing": spacing, "regions": uniform_regions(hu[0])}))
    return cases


def _without_spectra(rows: Sequence[Row]) -> tuple[list[Row], dict[str, dict[str, list[float]]]]:
    """Rows without the spectrum's bins, and the bins as method -> level -> values."""
    spectra, visible = {}, []
    for row in rows:
        spectra[row.method] = {
            level: [value for name, value in scores.items() if name.startswith("_nps")]
            for level, scores in row.scores.items()
        }
        kept = {
            level: {name: value for name, value in scores.items() if not name.startswith("_")}
            for level, scores in row.scores.items()
        }
        visible.append(replace(row, scores=kept))
    return visible, spectra
