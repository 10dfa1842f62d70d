"""``sasm qualify``: what the restoration does to one series of a scanner, measured on a sample of its slices.

Noise, grain, contrast of pasted lesions and mean values are measured before and after, at several strengths. Nothing is
compared with a cleaner image, for there is none; tissue and uniform places are found on the restored slices.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.errors import RefusedError
from monai_sasm.evaluation.contrast_gain import contrast_gains, mean_and_error
from monai_sasm.evaluation.ct_denoising import spectral_mean
from monai_sasm.evaluation.metrics import noise_power_spectrum
from monai_sasm.evaluation.qualify_sample import LESIONS, Sample, sampled
from monai_sasm.evaluation.some_slices import by_plan
from monai_sasm.evaluation.tissues import TISSUES, local_deviation, noise_index
from monai_sasm.io.acquisition import Acquisition
from monai_sasm.io.volume import Source, Volume
from monai_sasm.restoration.operating_range import outside, pixel_sides
from monai_sasm.restoration.options import Options
from monai_sasm.restoration.target_noise import MET, NoiseCurve, denoiser_alone, noise_curve
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from monai_sasm.restoration.plan import Plan
    from monai_sasm.restoration.restorer import Restorer

Image = NDArray[np.float32]
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
KEPT = 0.95  # of its contrast that every lesion keeps at the strength recommended where no noise is asked for
UNTOUCHED = 0.02  # mean weight in the patient below which a series counts as left alone
RAYLEIGH = 0.8493  # standard deviation of complex noise over the median of its magnitude
BINS = 10  # rings of the noise power spectrum
QUANTILES = (10, 25, 50, 75, 90)
MIDDLE = {Modality.CT: "soft tissue", Modality.MR: "middle"}
"""Where noise is measured if there are no uniform squares."""


@dataclass(frozen=True)
class Wish:
    """What the user wants to know.

    Args:
        slices: how many are sampled.
        target_noise: wanted in uniform soft tissue, HU; MR: in the middle tissue, percent of white.
        dose: share of the usual dose that a CT series was made with; without ``target_noise`` the noise of the usual
            dose is wanted, ``sqrt(dose)`` times that of the series.
        expert: named, instead of the gate.
        gate: another one than the default.
    """

    slices: int = 8
    target_noise: float | None = None
    dose: float = 0.25
    expert: str | None = None
    gate: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.dose <= 1:
            raise ValueError(f"dose is a share of the usual one, above 0 and at most 1, got {self.dose}")
        if self.slices < 1 or (self.target_noise is not None and not self.target_noise >= 0):
            raise ValueError("at least one slice is sampled, and a wanted noise is not negative")


def qualify(volume: Volume, restorer: Restorer, wish: Wish) -> tuple[dict[str, Any], Sample]:
    """Measure a series of CT or MR.

    Returns:
        what was measured, JSON-serialisable, without anything about the patient; and the slices, for pictures.

    Raises:
        RefusedError: it is neither CT nor MR, or no slice holds enough of a patient.
        BundleError: an expert or the gate is missing.
    """
    if volume.modality not in TISSUES:
        raise RefusedError(f"qualify knows CT, MR and photos, this is {volume.modality.value}")
    gated = restorer.plan(volume.modality, Options(expert=wish.expert, gate=wish.gate))
    plan, sample = _as_restored(volume, gated, wish)
    acquired = volume.source.acquisition() if isinstance(volume.source, Source) else Acquisition()
    count, _, height, width = volume.slices_shape
    rows = [_at_strength(sample, strength) for strength in STRENGTHS]
    gate = _weights(sample)
    best = _recommended(sample, wish, weight=sum(one["patient"] for one in gate.values()), last=rows[-1])
    if plan is not gated:
        best["reason"] += (
            f"; the gate would leave more: {plan.options.expert} acts everywhere, as it then does in restore"
        )
    if best["strength"] not in (None, *STRENGTHS):
        rows = sorted([*rows, _at_strength(sample, best["strength"])], key=lambda row: float(row["strength"]))
    return {
        "series": {
            "modality": volume.modality.value,
            "slices": count,
            "sampled": [index + 1 for index in sample.indices],
            "rows": height,
            "columns": width,
            "pixel_mm": [round(side, 4) for side in pixel_sides(volume)],
            **{name: value for name, value in asdict(acquired).items() if value not in ("", None)},
        },
        "unit": "HU" if volume.modality is Modality.CT else "% of white",
        "by": plan.options.expert or wish.gate or "gate",
        "models": plan.models,
        "measured_in": {
            "pixels": {
                tissue.name: len(sample.within(sample.after, tissue.name)) for tissue in TISSUES[sample.modality]
            },
            "uniform_squares": sum(map(len, sample.regions)),
            "lesions": sum(map(len, sample.places)),
        },
        "strengths": rows,
        "weights": gate,
        "range": _range(volume, plan, acquired, noise=sample.noise),
        "recommended": best,
    }, sample


def _as_restored(volume: Volume, plan: Plan, wish: Wish) -> tuple[Plan, Sample]:
    """The plan and its sample; the expert for noise everywhere where ``sasm restore --target-noise`` has it act so."""
    sample = sampled(volume, by_plan(plan), wish.slices)
    alone = denoiser_alone(plan)
    if wish.target_noise is None or alone is None:
        return plan, sample
    least = _least_noise(sample, wish.target_noise)
    if not least > MET * wish.target_noise:
        return plan, sample
    everywhere = sampled(volume, by_plan(alone), wish.slices)
    return (alone, everywhere) if _least_noise(everywhere, wish.target_noise) < least else (plan, sample)


def _least_noise(sample: Sample, target: float) -> float:
    """The noise nearest to the wanted one that some strength leaves; NaN where there is no uniform tissue."""
    try:
        return _curve(sample).nearest(target)
    except RefusedError:
        return math.nan


def _curve(sample: Sample) -> NoiseCurve:
    """Noise over strength.

    Raises:
        RefusedError: there is no uniform tissue.
    """
    added = sample.after - sample.before
    return noise_curve(sample.before[:, None], added[:, None], sample.modality, sample.scale)


def noise_in(sample: Sample, images: Image, tissue: str) -> float:
    """Noise in a kind of tissue, see :func:`monai_sasm.evaluation.tissues.noise_index`."""
    return noise_index(sample.within(np.stack([local_deviation(one, sample.window) for one in images]), tissue))


def _at_strength(sample: Sample, strength: float) -> dict[str, Any]:
    images = sample.at(strength)
    names = [tissue.name for tissue in TISSUES[sample.modality]]
    row: dict[str, Any] = {
        "strength": strength,
        "noise": {name: noise_in(sample, images, name) for name in names},
        "shift": {name: _mean(sample.within(images - sample.before, name)) for name in names},
        "gain": _gains(sample, strength),
    }
    patches = sample.patches(images)
    if len(patches):
        frequency, power = noise_power_spectrum(patches, sample.spacing, BINS)
        row["uniform_noise"] = float(patches.std(axis=(1, 2)).mean())
        row["nps"] = {
            "frequency_per_cm": [10 * float(value) for value in frequency],
            "power": [float(value) for value in power],
            "mean_per_cm": 10 * spectral_mean(frequency, power),
        }
    if sample.modality is Modality.MR:
        row |= _magnitude(sample, images, restored=strength > 0)
    return row


def _gains(sample: Sample, strength: float) -> dict[str, dict[str, float]]:
    """Kind of lesion -> mean contrast gain, its standard error and the number of places."""
    response, found = sample.response(strength), {}
    for disc in LESIONS[sample.modality].discs:
        values: list[float] = []
        for places, signal, got in zip(sample.places, sample.lesions, response, strict=True):
            centres = [centre for kind, centre in places if kind == disc]
            radius = disc.diameter / 2 / sample.spacing
            values += contrast_gains(np.zeros_like(signal), got, signal, centres=centres, radius=radius)
        mean, error = mean_and_error(values)
        found[disc.label] = {"gain": mean, "error": error, "places": len(values)}
    return found


def _magnitude(sample: Sample, images: Image, *, restored: bool) -> dict[str, Any]:
    """MR: noise of the background, the signal over it, and quantiles of the patient's values, percent of white.

    A background that was restored is all but empty, and says nothing of the noise in the patient.
    """
    from scipy.ndimage import binary_erosion

    outside_ = [binary_erosion(~body, iterations=4) for body in sample.bodies]
    background = np.concatenate([one[where] for one, where in zip(images, outside_, strict=True)])
    masked = restored or not len(background) or float((background <= 0).mean()) > 0.5
    noise = math.nan if masked else RAYLEIGH * float(np.median(background))
    inside = sample.in_patient(images)
    return {
        "background_noise": noise,
        "signal_to_noise": float(inside.mean()) / noise if noise > 0 else math.nan,
        "quantiles": dict(zip(map(str, QUANTILES), map(float, np.percentile(inside, QUANTILES)), strict=True)),
    }


def _weights(sample: Sample) -> dict[str, Any]:
    """Mean weight of each expert in the patient, by tissue, and slice by slice."""
    found = {}
    for name, maps in sample.weights.items():
        if maps.any():
            found[name] = {
                "patient": _mean(sample.in_patient(maps)),
                "tissues": {kind.name: _mean(sample.within(maps, kind.name)) for kind in TISSUES[sample.modality]},
                "slices": [_mean(one[body]) for one, body in zip(maps, sample.bodies, strict=True)],
            }
    return found


def _range(volume: Volume, plan: Plan, acquired: Acquisition, *, noise: float) -> dict[str, Any]:
    """Expert -> what it was trained and measured for, and why this series is no such; no reason: inside."""
    found = {}
    for expert in plan.experts.values():
        allowed = expert.metadata["sasm"].get("range")
        if allowed:
            unit = " of white" if volume.modality.profile.relative else f" {volume.unit}"
            reasons = outside(allowed, acquired, noise=noise, unit=unit, pixels=pixel_sides(volume))
            found[expert.name] = {"noise_read": noise, "range": allowed, "outside": reasons}
    return found


def _recommended(sample: Sample, wish: Wish, *, weight: float, last: dict[str, Any]) -> dict[str, Any]:
    """The strength for the wanted noise, and what it costs; or why nothing is recommended.

    Noise is read as ``sasm restore --target-noise`` reads it, so that both choose one strength.
    """
    try:
        curve = _curve(sample)
    except RefusedError:
        now = noise_in(sample, sample.before, MIDDLE[sample.modality])
        return {"strength": None, "noise_now": now, "reason": "no uniform tissue was found to measure noise in"}
    now = curve.at(0)
    if weight < UNTOUCHED:
        return {"strength": None, "noise_now": now, "reason": f"the series is left alone (mean weight {weight:.2g})"}
    if wish.target_noise is None and sample.modality is Modality.MR:
        strength, wanted = _keeping(last), None
        reason = f"every lesion keeps {KEPT:.0%} of its contrast"
    elif wish.target_noise is None:
        wanted = now * math.sqrt(wish.dose)
        strength, reason = curve.strength_for(wanted), f"noise as at full dose, if this is {wish.dose:g} of it"
    else:
        wanted = wish.target_noise
        strength, reason = curve.strength_for(wanted), "noise as asked for"
    reached = curve.at(strength)
    if wanted is not None and wanted > 1.02 * reached:
        reason += "; the series has less already"
    elif wanted is not None and reached > 1.02 * wanted:
        reason += "; the whole restoration leaves more"
    gains = {label: 1 - strength * (1 - one["gain"]) for label, one in last["gain"].items() if one["places"]}
    return {
        "strength": round(strength, 3),
        "noise_now": now,
        "noise_wanted": wanted,
        "noise": reached,
        "gain": gains,
        "reason": reason,
    }


def _keeping(last: dict[str, Any]) -> float:
    """The largest strength at which every lesion keeps its share: gains fall in a straight line."""
    worst = min((one["gain"] for one in last["gain"].values() if one["places"]), default=1.0)
    return 1.0 if worst >= KEPT else (1 - KEPT) / (1 - worst)


def _mean(values: NDArray[np.floating]) -> float:
    return float(values.mean()) if values.size else math.nan
