"""``ct-lesions``: discs of low contrast pasted into slices of an unseen patient, and how much of them is given back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.contrast_gain import (
    Disc,
    contrast_gains,
    disc_signal,
    mean_and_error,
    strength_of,
    uniform_places,
)
from monai_sasm.evaluation.data import ct_slice, data_hash, files
from monai_sasm.evaluation.metrics import CT_WINDOW, noise_power_spectrum, psnr, windowed
from monai_sasm.evaluation.scoring import Case, Image, Method, fingerprint
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.protocols import peers
from monai_sasm.protocols.ct import uniform_regions

if TYPE_CHECKING:
    from monai_sasm.io.volume import Volume

PROTOCOL = "ct-lesions"
EXPERT = "lowdose_ct_unet"
HU_PER_UNIT = 1000.0  # the experts' working scale
DISCS = (Disc(3, 14), Disc(5, 7), Disc(7, 5), Disc(10, 3), Disc(3, 40), Disc(5, -40))  # mm, HU
BLUR = 0.4  # mm, standard deviation: what a sharp abdominal kernel (D45f) leaves of a point
TISSUE, SPREAD = (-20.0, 150.0), 16.0  # HU, after smoothing: soft tissue without edges
BINS = 10  # rings of the noise power spectrum
PLACES = 6  # per slice, at most
LEVELS = ("quarter", "full")
BM3D_SLICES = 2  # per level
TUNING = "L143_D45f_i106"  # peers are tuned here, a training patient
PEERS = ("NLM fast", "BM3D")
STRENGTHS = {"BM3D": (1.0, 1.4, 2.0, 2.8), "NLM fast": (0.5, 0.7, 1.0, 1.4, 2.0)}
DEFINITIONS = {
    "gain": "contrast gain of discs of so many mm and HU: sum of E(y + s) - E(y) over sum of s inside the disc, 1 is "
    "kept and 0 erased; [mean - standard error, mean + standard error] over slices",
    "noise": "HU, standard deviation in uniform soft tissue, as in ct-lowdose",
    "NPS mean": "cycles/cm, power-weighted mean frequency of the noise power spectrum there",
    "PSNR": "dB against full dose, images clipped to [-160, 240] HU, data range 400; quarter dose only",
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
    cases, used = _cases(root / "L096_dicom", context.limit)
    inputs = {_key(case): _restored(case, lambda c: c.degraded) for case in cases}
    aim = float(np.mean([_noise(case, inputs[_key(case)].plain) for case in cases if case.level == "full"]))
    rows = [_row("input", cases, inputs, 0.0)]
    if context.peers:
        rows += _peer_rows(context, root, cases)
    for name, restore in _ours(context).items():
        outputs = {_key(case): _restored(case, restore) for case in cases}
        rows.append(_row(name, cases, outputs, 1.0))
        quarter = [case for case in cases if case.level == "quarter"]
        strength = strength_of(partial(_mean_noise, quarter, inputs, outputs), aim)
        blended = {_key(case): outputs[_key(case)].blended(inputs[_key(case)], strength) for case in quarter}
        rows.append(_row(f"{name}, noise as full dose", quarter, blended, strength))
    places = [len(case.facts["places"]) for case in cases if case.level == "full"]
    flags = (
        f"discs blurred by {BLUR:g} mm, at the {min(places)} to {max(places)} most uniform places of soft tissue of "
        "each slice, chosen on the smoothed full-dose slice; one kind of disc at a time",
        "L096 was not trained on; all slices are of one patient",
        "default pipeline: the gate decides; lowdose_ct_unet: named, without the gate",
        f"noise as full dose: one strength for all slices, at which their mean noise is {aim:.1f} HU",
        f"peers are told the noise measured at the places and tuned for PSNR on {TUNING}; BM3D runs on the first "
        f"{BM3D_SLICES} slices of each dose",
    )
    return Table(PROTOCOL, data_hash(used), DEFINITIONS, tuple(rows), (*context.limited(), *flags))


def _cases(folder: Path, limit: int | None) -> tuple[list[Case], list[Path]]:
    cases, used = [], []
    for full_path in files(folder / "full", limit=limit):
        quarter_path = folder / "quarter" / full_path.name
        full, spacing = ct_slice(full_path)
        used += [full_path, quarter_path]
        name = full_path.name.split(".")[0]
        for level, path in zip(LEVELS, (quarter_path, full_path), strict=True):
            cases += lesion_case(name, level, full, ct_slice(path)[0], spacing, path)
    return cases, used


def lesion_case(name: str, level: str, full: Image, image: Image, spacing: float, path: Path) -> list[Case]:
    """A slice with the places of its discs; none where it has no uniform soft tissue.

    Args:
        name: of the slice.
        level: its dose.
        full: full dose ``(1, H, W)``, HU, where the places are chosen.
        image: the slice itself.
        spacing: pixel size, mm.
        path: its file, for the pipeline to read.
    """
    places = uniform_places(full[0], spacing, TISSUE, SPREAD, count=PLACES)
    regions = uniform_regions(full[0])
    if not places or not regions:
        return []
    facts = {"spacing": spacing, "places": places, "regions": regions, "path": path}
    case = Case(name, level, full, image, 0.0, facts)
    return [replace(case, sigma=_noise(case, image))]


def _ours(context: Context) -> dict[str, Callable[[Case], Image]]:
    """Rows of our own: the default pipeline and the named expert, as shipped and with each further checkpoint."""
    found: dict[str, Callable[[Case], Image]] = {}
    for label, path in [("", None), *context.weights.items()]:
        if context.restorer is not None:
            found[f"default pipeline {label}".strip()] = _pipeline(context, path)
        found[f"{EXPERT} {label}".strip()] = _corrected(context.expert(EXPERT, path))
    return found


def _pipeline(context: Context, weights: Path | None) -> Callable[[Case], Image]:
    """The gate and its experts, as for any file; with other weights of the expert."""
    import torch

    from monai_sasm.restoration.restorer import Restorer

    restorer = Restorer(context.device)
    if weights is not None:
        state = torch.load(weights, map_location=restorer.device, weights_only=True)
        restorer.experts[EXPERT].network.load_state_dict(state)
    return lambda case: np.ascontiguousarray(restorer(_volume(case)).volume.as_slices()[0])


def _volume(case: Case) -> Volume:
    """The slice as the pipeline reads it, with the case's pixels."""
    from monai_sasm.io.formats import open_images
    from monai_sasm.types import Modality

    volume = next(open_images(case.facts["path"], Modality.CT))
    return volume.from_slices(np.ascontiguousarray(case.degraded[None], np.float32))


def _corrected(expert: Callable[[Image, float | None], Image]) -> Callable[[Case], Image]:
    """A named expert on HU images, the noise estimated from the image."""

    def restore(case: Case) -> Image:
        working = (case.degraded / HU_PER_UNIT).astype(np.float32)
        return (case.degraded + HU_PER_UNIT * (expert(working, None) - working)).astype(np.float32)

    return restore


def _restored(case: Case, restore: Callable[[Case], Image]) -> Restoration:
    with_lesions = (replace(case, degraded=case.degraded + _signal(case, disc)) for disc in DISCS)
    return Restoration(restore(case), tuple(restore(one) for one in with_lesions))


def _signal(case: Case, disc: Disc) -> Image:
    height, width = case.degraded.shape[-2:]
    return disc_signal((height, width), case.facts["places"], disc, case.facts["spacing"], BLUR)[None]


def _measured(case: Case, done: Restoration) -> dict[str, float]:
    """One value per metric of a slice; the gain is the mean over its places."""
    gains = {}
    for disc, image in zip(DISCS, done.lesions, strict=True):
        radius = disc.diameter / 2 / case.facts["spacing"]
        values = contrast_gains(done.plain[0], image[0], _signal(case, disc)[0], case.facts["places"], radius)
        gains[f"gain {disc.label}"] = float(np.mean(values))
    frequency, power = noise_power_spectrum(_patches(case, done.plain), case.facts["spacing"], BINS)
    scores = gains | {
        "noise": _noise(case, done.plain),
        "NPS mean": 10 * float((frequency * power).sum() / power.sum()),
    }
    if case.level == "quarter":
        scores["PSNR"] = psnr(windowed(case.clean), windowed(done.plain), CT_WINDOW[1] - CT_WINDOW[0])
    return scores


def _patches(case: Case, image: Image) -> Image:
    return np.stack([image[0][place] for place in case.facts["regions"]])


def _noise(case: Case, image: Image) -> float:
    """Mean standard deviation of the uniform regions, HU."""
    return float(_patches(case, image).std(axis=(1, 2)).mean())


def _mean_noise(
    cases: Sequence[Case], inputs: dict[str, Restoration], outputs: dict[str, Restoration], strength: float
) -> float:
    """Mean noise of the blends of inputs and outputs, HU."""
    blends = [outputs[_key(case)].blended(inputs[_key(case)], strength).plain for case in cases]
    return float(np.mean([_noise(case, image) for case, image in zip(cases, blends, strict=True)]))


def _key(case: Case) -> str:
    return f"{case.level} {case.name}"


def _row(name: str, cases: Sequence[Case], done: dict[str, Restoration], strength: float, note: str = "") -> Row:
    measured = {_key(case): _measured(case, done[_key(case)]) for case in cases}
    return _averaged(name, cases, measured, strength, note)


def _averaged(
    name: str, cases: Sequence[Case], measured: dict[str, dict[str, float]], strength: float, note: str = ""
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
    return Row(name, scores, counts, None, note, limits)


def _peer_rows(context: Context, root: Path, cases: Sequence[Case]) -> list[Row]:
    full, quarter = (root / "L143_nifti" / kind / f"{TUNING}.nii.gz" for kind in ("full", "quarter"))
    image, spacing = ct_slice(full)
    tuning = lesion_case(TUNING, "quarter", image, ct_slice(quarter)[0], spacing, quarter)
    methods = peers.methods(
        PEERS, tuning, context.kept, scale=HU_PER_UNIT, strengths=STRENGTHS, first=BM3D_SLICES,
        score=lambda case, image: psnr(windowed(case.clean), windowed(image), CT_WINDOW[1] - CT_WINDOW[0]),
    )  # fmt: skip
    return [_peer_row(context, method, cases) for method in methods]


def _peer_row(context: Context, method: Method, cases: Sequence[Case]) -> Row:
    chosen = [case for level in LEVELS for case in [case for case in cases if case.level == level][: method.first]]
    measured = {}
    for case in chosen:
        parts = fingerprint(case.clean, case.degraded, case.sigma, case.facts["places"], DISCS, BLUR)
        key = f"{PROTOCOL}|{method.name}|{method.settings}|{_key(case)}|{parts}"
        found = context.kept.get(key)
        if found is None:
            found = _measured(case, _restored(case, method.restore))
            context.kept.put(key, found)
        measured[_key(case)] = found
    name = method.name if len(chosen) == len(cases) else f"{method.name} (subset)"
    return _averaged(name, chosen, measured, 1.0, method.note)
