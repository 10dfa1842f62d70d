"""``ct-lesions``: discs of low contrast pasted into slices of an unseen patient, and how much of them is given back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import peers
from monai_sasm.evaluation.contenders import contender_methods, contenders
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.contrast_gain import (
    Disc,
    contrast_gains,
    disc_signal,
    mean_and_error,
    strength_of,
    uniform_places,
)
from monai_sasm.evaluation.ct_denoising import (
    EXPERT,
    FAMILY,
    HU_SCALE,
    RIVALS,
    STRENGTHS,
    region_patches,
    spectral_mean,
    uniform_regions,
    window_psnr,
)
from monai_sasm.evaluation.data import CtPair, ct_pairs, data_hash, seed_of
from monai_sasm.evaluation.metrics import noise_power_spectrum
from monai_sasm.evaluation.observer import read
from monai_sasm.evaluation.restoring import DEFAULT, our_methods, retrained
from monai_sasm.evaluation.scoring import Case, Image, Method, degrade, fingerprint, probe, rounded
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.types import Modality

PROTOCOL = "ct-lesions"
WEIGHTS = (EXPERT,)  # experts whose further weights are compared
DISCS = (Disc(3, 14), Disc(5, 7), Disc(7, 5), Disc(10, 3), Disc(3, 40), Disc(5, -40))  # mm, HU
BLUR = 0.4  # mm, standard deviation: what a sharp abdominal kernel (D45f) leaves of a point
TISSUE, SPREAD = (-20.0, 150.0), 16.0  # HU, after smoothing: soft tissue without edges
BINS = 10  # rings of the noise power spectrum
PLACES = 6  # per slice, at most
LEVELS = ("quarter", "full")
BM3D_SLICES = 2  # per level
TUNING = "L143_D45f_i106"  # peers are tuned here, a training patient
PEERS = ("NLM fast", "BM3D")
OBSERVED = "quarter, simulated"  # level that a model observer reads
REALISATIONS = 4  # of the noise of each slice, without discs, and as many with them
HALF = 16  # pixels; a region that is read has 2 HALF + 1
DEFINITIONS = {
    "gain": "contrast gain of discs of so many mm and HU: sum of E(y + s) - E(y) over sum of s inside the disc, 1 is "
    "kept and 0 erased; [mean - standard error, mean + standard error] over slices",
    "noise": "HU, standard deviation in uniform soft tissue, as in ct-lowdose",
    "NPS mean": "cycles/cm, power-weighted mean frequency of the noise power spectrum there",
    "PSNR": "dB against full dose, images clipped to [-160, 240] HU, data range 400; quarter dose only",
    "AUC": "of a channelised Hotelling observer (monai_sasm.evaluation.observer) that looks for the disc in noise of "
    "quarter dose simulated on full-dose slices, whose anatomy it knows; [mean - SD, mean + SD] of 10 readers",
    "strength": "share of the restoration in the blend with the input",
}


@dataclass(frozen=True, eq=False)
class Restoration:
    """A slice restored without and with each kind of disc, HU ``(1, H, W)``."""

    plain: Image
    lesions: tuple[Image, ...]

    def blended(self, other: Restoration, strength: float) -> Restoration:
        """``other`` at ``strength`` 0, this one at 1."""

        def mix(a: Image, b: Image) -> Image:
            return a + np.float32(strength) * (b - a)

        pairs = zip(other.lesions, self.lesions, strict=True)
        return Restoration(mix(other.plain, self.plain), tuple(mix(a, b) for a, b in pairs))


def run(context: Context) -> Table:
    """Ten slices of the test patient L096 (D45f), at quarter and at full dose."""
    root = context.data / "ct_ldct_pairs"
    pairs = list(ct_pairs(root / "L096_dicom", limit=context.limit))
    cases = [case for pair in pairs for level in LEVELS for case in lesion_cases(pair, level)]
    inputs = {_key(case): _restored(case, lambda c: c.degraded) for case in cases}
    aim = float(np.mean([_noise(case, inputs[_key(case)].plain) for case in cases if case.level == "full"]))
    noisy = _simulated([case for case in cases if case.level == "full"])
    before = Method("input", lambda case: case.degraded)
    ours = retrained(context, Modality.CT, EXPERT, our_methods)
    found, missing = contenders(context, FAMILY, RIVALS, steps=(1,))
    rivals = contender_methods(context.restorer, Modality.CT, found)
    rows = [_observed(_row("input", cases, inputs, strength=0.0), noisy, before)]
    if context.peers:
        rows += _peer_rows(context, root, cases)
    quarter = [case for case in cases if case.level == "quarter"]
    for method in (*ours, *rivals):
        outputs = {_key(case): _restored(case, method.restore) for case in cases}
        row = _row(method.name, cases, outputs, strength=1.0)
        rows.append(row if method in rivals else _observed(row, noisy, method))
        strength = strength_of(partial(_mean_noise, quarter, inputs, outputs), aim)
        blended = {_key(case): outputs[_key(case)].blended(inputs[_key(case)], strength) for case in quarter}
        rows.append(_row(f"{method.name}, noise as full dose", quarter, blended, strength=strength))
    places = [len(case.facts["places"]) for case in cases if case.level == "full"]
    return Table(
        PROTOCOL,
        data_hash=data_hash([path for pair in pairs for path in pair.paths]),
        definitions=DEFINITIONS,
        rows=tuple(rows),
        flags=(
            *context.limited(),
            f"discs blurred by {BLUR:g} mm, at the {min(places)} to {max(places)} most uniform places of soft tissue "
            "of each slice, chosen on the smoothed full-dose slice; one kind of disc at a time",
            "L096 was not trained on, but looked at while weights were chosen; all slices are of one patient",
            f"the observer: {REALISATIONS} realisations of LowDoseCt per slice without and as many with discs, each of "
            "its own seed (from the names of slice and realisation), every place a region; restoring adds no "
            "information, so what counts is that the AUC does not fall",
            f"{DEFAULT}: the gate decides; expert: named, without the gate",
            f"noise as full dose: one strength for all slices, at which their mean noise is {aim:.1f} HU",
            f"peers are told the noise measured at the places and tuned for PSNR on {TUNING}; BM3D runs on the first "
            f"{BM3D_SLICES} slices of each dose",
            *missing,
        ),
    )


def lesion_cases(pair: CtPair, level: str) -> list[Case]:
    """A slice, of quarter or full dose, with the places of its discs; none where it has no uniform soft tissue."""
    places = uniform_places(pair.full[0], pair.spacing, span=TISSUE, spread=SPREAD, count=PLACES)
    regions = uniform_regions(pair.full[0])
    if not places or not regions:
        return []
    facts = {"spacing": pair.spacing, "places": places, "regions": regions}
    image = pair.quarter if level == "quarter" else pair.full
    case = Case(pair.name, level, clean=pair.full, degraded=image, facts=facts)
    return [replace(case, sigma=_noise(case, image))]


def _simulated(full: Sequence[Case]) -> list[Case]:
    """Full-dose slices at a simulated quarter of the dose, :data:`REALISATIONS` times without and with discs."""
    from monai_sasm.degradations.low_dose_ct import LowDoseCt

    found = []
    for case in full:
        model = LowDoseCt(spacing=case.facts["spacing"], dose=(0.25, 0.25), kernel="sharp")
        for seed in range(2 * REALISATIONS):
            image = degrade(model, case.clean[None], seed=seed_of(case.name, seed))[0][0]
            found.append(replace(case, level=OBSERVED, degraded=image, facts={**case.facts, "seed": seed}))
    return found


def _observed(row: Row, noisy: Sequence[Case], method: Method) -> Row:
    """The row with what a model observer makes of the method's images."""
    absent = [case for case in noisy if case.facts["seed"] < REALISATIONS]
    present = [case for case in noisy if case.facts["seed"] >= REALISATIONS]
    without = _regions(absent, [method.restore(case) for case in absent])
    if len(without) < 4:
        return row
    scores, limits = {}, {}
    for disc in DISCS:
        images = [method.restore(replace(case, degraded=case.degraded + _signal(case, disc))) for case in present]
        reading = read(without, _regions(present, images), disc.diameter / present[0].facts["spacing"])
        scores[f"AUC {disc.label}"] = reading.auc
        limits[f"AUC {disc.label}"] = (reading.auc - reading.spread, reading.auc + reading.spread)
    return replace(
        row,
        scores={**row.scores, OBSERVED: scores},
        n={**row.n, OBSERVED: len(without)},
        spreads={**row.spreads, OBSERVED: limits},
    )


def _regions(cases: Sequence[Case], images: Sequence[Image]) -> Image:
    """What is around each place, less the anatomy, ``(N, side, side)``; places at the border are left out."""
    found = []
    for case, image in zip(cases, images, strict=True):
        difference = (image - case.clean)[0]
        for row, column in case.facts["places"]:
            part = difference[max(0, row - HALF) : row + HALF + 1, max(0, column - HALF) : column + HALF + 1]
            if part.shape == (2 * HALF + 1, 2 * HALF + 1):
                found.append(part)
    return np.stack(found) if found else np.empty((0, 1, 1), np.float32)


def _restored(case: Case, restore: Callable[[Case], Image]) -> Restoration:
    with_lesions = (replace(case, degraded=case.degraded + _signal(case, disc)) for disc in DISCS)
    return Restoration(restore(case), tuple(restore(one) for one in with_lesions))


def _signal(case: Case, disc: Disc) -> Image:
    height, width = case.degraded.shape[-2:]
    places, spacing = case.facts["places"], case.facts["spacing"]
    return disc_signal((height, width), places, disc, spacing=spacing, blur=BLUR)[None]


def _measured(case: Case, done: Restoration) -> dict[str, float]:
    """One value per metric of a slice; the gain is the mean over its places."""
    gains = {}
    for disc, image in zip(DISCS, done.lesions, strict=True):
        values = contrast_gains(
            done.plain[0],
            image[0],
            _signal(case, disc)[0],
            centres=case.facts["places"],
            radius=disc.diameter / 2 / case.facts["spacing"],
        )
        gains[f"gain {disc.label}"] = float(np.mean(values))
    frequency, power = noise_power_spectrum(region_patches(case, done.plain), case.facts["spacing"], BINS)
    scores = gains | {
        "noise": _noise(case, done.plain),
        "NPS mean": 10 * spectral_mean(frequency, power),
    }
    if case.level == "quarter":
        scores["PSNR"] = window_psnr(case, done.plain)
    return scores


def _noise(case: Case, image: Image) -> float:
    """Mean standard deviation of the uniform regions, HU."""
    return float(region_patches(case, image).std(axis=(1, 2)).mean())


def _mean_noise(
    cases: Sequence[Case], inputs: dict[str, Restoration], outputs: dict[str, Restoration], strength: float
) -> float:
    """Mean noise of the blends of inputs and outputs, HU."""
    blends = [outputs[_key(case)].blended(inputs[_key(case)], strength).plain for case in cases]
    return float(np.mean([_noise(case, image) for case, image in zip(cases, blends, strict=True)]))


def _key(case: Case) -> str:
    return f"{case.level} {case.name}"


def _row(name: str, cases: Sequence[Case], done: dict[str, Restoration], *, strength: float) -> Row:
    measured = {_key(case): _measured(case, done[_key(case)]) for case in cases}
    return _averaged(name, cases, measured, strength=strength)


def _averaged(
    name: str, cases: Sequence[Case], measured: dict[str, dict[str, float]], *, strength: float, note: str = ""
) -> Row:
    scores: dict[str, dict[str, float]] = {}
    limits: dict[str, dict[str, tuple[float, float]]] = {}
    counts: dict[str, int] = {}
    for level in dict.fromkeys(case.level for case in cases):
        found = [measured[_key(case)] for case in cases if case.level == level]
        means = {metric: mean_and_error([entry[metric] for entry in found]) for metric in found[0]}
        scores[level] = {metric: mean for metric, (mean, _) in means.items()} | {"strength": strength}
        limits[level] = {
            metric: (mean - error, mean + error) for metric, (mean, error) in means.items() if "gain" in metric
        }
        counts[level] = len(found)
    return Row(name, scores, n=counts, note=note, spreads=limits)


def _peer_rows(context: Context, root: Path, cases: Sequence[Case]) -> list[Row]:
    (pair,) = ct_pairs(root / "L143_nifti", names=(TUNING,))
    methods = peers.methods(
        PEERS,
        lesion_cases(pair, "quarter"),
        context.cache,
        scale=HU_SCALE,
        strengths=STRENGTHS,
        quality=window_psnr,
        first=BM3D_SLICES,
    )
    return [_peer_row(context, method, cases) for method in methods]


def _peer_row(context: Context, method: Method, cases: Sequence[Case]) -> Row:
    chosen = [case for level in LEVELS for case in [case for case in cases if case.level == level][: method.first]]
    measured = {}
    for case in chosen:
        blurred = rounded(_measured(case, _restored(case, probe)))
        parts = fingerprint(case.clean, case.degraded, case.sigma, case.facts, DISCS, BLUR, blurred)
        key = f"{PROTOCOL}|{method.name}|{method.settings}|{_key(case)}|{parts}"
        found = context.cache.get(key)
        if found is None:
            found = _measured(case, _restored(case, method.restore))
            context.cache.put(key, found)
        measured[_key(case)] = found
    name = method.name if len(chosen) == len(cases) else f"{method.name} (subset)"
    return _averaged(name, chosen, measured, strength=1.0, note=method.note)
