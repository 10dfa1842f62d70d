"""``ct-phantom``: a low-contrast phantom read by a model observer, and digital water with inserts: HU, MTF, noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.evaluation import peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.contrast_gain import Disc, contrast_gains, disc_signal
from monai_sasm.evaluation.ct_denoising import BINS, EXPERT, HU_SCALE, PATCH, STRENGTHS, spectral_mean, window_psnr
from monai_sasm.evaluation.data import DataAbsentError, data_hash
from monai_sasm.evaluation.metrics import noise_power_spectrum
from monai_sasm.evaluation.observer import read
from monai_sasm.evaluation.resolution import edge_response, mtf_at
from monai_sasm.evaluation.restoring import DEFAULT, our_methods, retrained
from monai_sasm.evaluation.scoring import Case, Image, Method, degrade, fingerprint, probe, rounded
from monai_sasm.evaluation.table import Row, Table, merged
from monai_sasm.types import Modality

PROTOCOL = "ct-phantom"
WEIGHTS = (EXPERT,)  # experts whose further weights are compared
FILE = "ct_phantom/mita_lcd_ct_small.npz"
SPACING = 0.664  # mm, pixels of the MITA images
OFFSET = 1000  # stored values are HU + 1000
RING = 46.5  # pixels from the middle to the inserts
PLACES = tuple(np.radians(45.0 * k) for k in range(8))  # every second one holds an insert in the published images
HALF = 16  # pixels; a region read by the observer has 2 HALF + 1
DOSES = {"MITA 10 %": "010", "MITA 55 %": "055", "MITA 100 %": "100"}
INSERTS = (Disc(3, 14), Disc(5, 7), Disc(7, 5), Disc(10, 3))
BLUR = 0.3  # mm, of the pasted inserts
PEERS = ("NLM fast", "BM3D")
BM3D_LEVELS = ("MITA 10 %", "water 1/4")  # it takes seconds per image
PUBLISHED = {  # AUC of DIDSR/LCD_CT's own LG_CHO on the same regions, mean and standard deviation of its 10 readers
    "MITA 10 %": ((0.609, 0.061), (0.617, 0.066), (0.654, 0.057), (0.609, 0.050)),
    "MITA 55 %": ((0.710, 0.093), (0.656, 0.088), (0.711, 0.099), (0.717, 0.092)),
    "MITA 100 %": ((0.845, 0.035), (0.831, 0.069), (0.861, 0.039), (0.768, 0.035)),
}
SIZE, WATER_SPACING, RADIUS = 384, 0.74, 125.0  # pixels; mm; mm, of the water
WATER_DOSES = {"water 1/1": 1.0, "water 1/4": 0.25, "water 1/10": 0.1}
HU_INSERTS = (-1000, -500, -100, 50, 100, 250, 500, 1000)
HU_DIAMETER, HU_RING = 22.0, 75.0  # mm
CORE = 0.6  # of an insert's radius, where its mean is taken
EDGES = (30, 120, 1000)  # HU, of the discs whose edge gives the MTF
EDGE_DISC, EDGE_RING = 24.0, 60.0  # mm
REALISATIONS = 4
DEFINITIONS = {
    "AUC": "of a channelised Hotelling observer (5 Laguerre-Gauss channels, 2/3 of the insert wide) that looks for "
    "inserts of so many mm and HU in the MITA phantom; half of the regions to learn on; [mean - SD, mean + SD] of 10 "
    "readers",
    "gain": "contrast gain of the same inserts, see ct-lesions",
    "noise": "HU, standard deviation in uniform phantom",
    "NPS mean": "cycles/cm, power-weighted mean frequency of the noise power spectrum there",
    "bias": "HU, mean over uniform water of restored minus truth",
    "HU slope": f"of a straight line through measured over true HU of inserts of {HU_DIAMETER:g} mm, "
    f"{HU_INSERTS[0]} to {HU_INSERTS[-1]} HU; 1 is right",
    "HU error": "HU, largest deviation of an insert's mean over realisations from the truth; the input's is what noise "
    "leaves of a mean",
    "MTF50, MTF10": "cycles/cm at which the response to the edge of a disc of so many HU falls to 50 and 10 %; the "
    "disc is pasted under the same noise, so that noise drops out",
}


@dataclass(frozen=True)
class Phantom:
    """One level: noisy images without inserts, HU ``(N, H, W)``, their noise, and a case that is not measured.

    Args:
        level: dose.
        images: what is measured.
        sigma: standard deviation in the middle, HU.
        tuning: another realisation, with inserts and without noise.
    """

    level: str
    images: Image
    sigma: float
    tuning: Case


def run(context: Context) -> Table:
    """FDA's MITA images at three doses, and digital water at three simulated ones."""
    path = context.data / FILE
    if not path.is_file():
        raise DataAbsentError(path)
    phantoms = [*mita(path, context.limit), *water(context.limit)]
    ours = retrained(context, Modality.CT, EXPERT, our_methods)
    rows = [_row(Method("input", lambda case: case.degraded), phantoms), _published()]
    others = _peers(context, phantoms)
    blur = Method("blur", probe)
    probed = {one.level: rounded(_measured(one, blur)) for one in phantoms} if others else {}
    for method in others:
        some = phantoms if method.first is None else [one for one in phantoms if one.level in BM3D_LEVELS]
        rows.append(_cached_row(context, method, some, probed))
    rows += [_row(method, phantoms) for method in ours]
    return Table(
        PROTOCOL,
        data_hash=data_hash([path]),
        definitions=DEFINITIONS,
        rows=merged(rows),
        flags=(
            *context.limited(),
            "MITA phantom: simulated FBP images of DIDSR/LCD_CT (CC0), 10 per dose; inserts are pasted at eight places "
            "of the ring in which the phantom has its own, in one half of the images, and read against the other half",
            "LCD_CT: its own observer on the same regions of the input; on the same halves ours equals it to rounding "
            "(tests/evaluation/test_observer.py), so that their difference is which halves were drawn. The curves it "
            "publishes, AUC .70, .90 and .95 for 10 mm/3 HU at these doses, are of a larger set that is not here",
            f"water: a cylinder of {2 * RADIUS:g} mm, {REALISATIONS} noise realisations of LowDoseCt, sharp kernel",
            f"{DEFAULT}: the gate decides; expert: named, without the gate",
            "peers are told the noise and tuned at each dose by PSNR in [-160, 240] HU against the truth, on images "
            "that are not measured: one with the phantom's own inserts (MITA), another realisation with the inserts "
            f"of the HU scale (water); BM3D runs at {' and '.join(BM3D_LEVELS)}",
        ),
    )


def mita(path: Path, limit: int | None = None) -> list[Phantom]:
    """The signal-absent images of each dose; ``limit`` of them, four at least. Peers are tuned on one with inserts."""
    count = None if limit is None else max(limit, 4)
    found = []
    with np.load(path) as stored:
        truth = stored["ground_truth"].astype(np.float32)[None] - OFFSET
        for level, name in DOSES.items():
            absent, present = (
                stored[f"dose_{name}__{kind}"][:number].astype(np.float32) - OFFSET
                for kind, number in (("absent", count), ("present", 1))
            )
            found.append(_phantom(level, absent, present, truth))
    return found


def water(limit: int | None = None) -> list[Phantom]:
    """A cylinder of water at each dose, noise as of the calibrated scanner. Peers are tuned on one realisation more,
    with inserts.
    """
    from monai_sasm.degradations.low_dose_ct import LowDoseCt

    count = REALISATIONS if limit is None else min(limit, REALISATIONS)
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    clean = np.where(np.hypot(rows, columns) * WATER_SPACING < RADIUS, 0.0, -1000.0).astype(np.float32)
    inserts, found = _hu_inserts(), []
    for level, dose in WATER_DOSES.items():
        model = LowDoseCt(WATER_SPACING, dose=(dose, dose), kernel="sharp", noise_free=True)
        images, (other,) = (
            np.concatenate([degrade(model, clean[None, None], seed=seed)[0][0] for seed in seeds])
            for seeds in (range(count), (REALISATIONS,))
        )
        found.append(_phantom(level, images, (other + inserts)[None], (clean + inserts)[None]))
    return found


def _phantom(level: str, images: Image, other: Image, truth: Image) -> Phantom:
    """With the noise of the images; ``other`` and ``truth``, ``(1, H, W)``, are for tuning."""
    part = _middle(images)
    sigma = float(images[:, part, part].std())
    return Phantom(level, images, sigma, Case("tuning", level, clean=truth, degraded=other, sigma=sigma))


def _published() -> Row:
    scores = {
        level: {f"AUC {disc.label}": mean for disc, (mean, _) in zip(INSERTS, values, strict=True)}
        for level, values in PUBLISHED.items()
    }
    limits = {
        level: {
            f"AUC {disc.label}": (mean - spread, mean + spread)
            for disc, (mean, spread) in zip(INSERTS, values, strict=True)
        }
        for level, values in PUBLISHED.items()
    }
    return Row("input, read by LCD_CT", scores, n=dict.fromkeys(scores, 10), note="published code", spreads=limits)


def _row(method: Method, phantoms: Sequence[Phantom]) -> Row:
    measured = {one.level: _measured(one, method) for one in phantoms}
    return _as_row(method, phantoms, measured)


def _cached_row(
    context: Context, method: Method, phantoms: Sequence[Phantom], probed: Mapping[str, dict[str, str]]
) -> Row:
    """The row of a peer, kept as long as the metrics make the same of a blur, ``probed``, at each level."""
    measured = {}
    for one in phantoms:
        parts = fingerprint(one.images, one.sigma, probed[one.level])
        key = f"{PROTOCOL}|{method.name}|{method.settings}|{one.level}|{parts}"
        found = context.cache.get(key)
        if found is None:
            found = _measured(one, method)
            context.cache.put(key, found)
        measured[one.level] = found
    return _as_row(method, phantoms, measured)


def _as_row(method: Method, phantoms: Sequence[Phantom], measured: Mapping[str, dict[str, float]]) -> Row:
    """Spreads become limits of the AUC."""
    scores, limits = {}, {}
    for level, values in measured.items():
        scores[level] = {name: value for name, value in values.items() if not name.startswith("spread ")}
        limits[level] = {
            name: (value - values[f"spread {name}"], value + values[f"spread {name}"])
            for name, value in scores[level].items()
            if f"spread {name}" in values
        }
    counts = {one.level: len(one.images) for one in phantoms}
    return Row(method.name, scores, n=counts, note=method.note, spreads=limits)


def _measured(phantom: Phantom, method: Method) -> dict[str, float]:
    restore = _restoring(method, phantom)
    plain = restore(phantom.images)
    part = _middle(plain)
    inner = plain[:, part, part].astype(np.float64)
    frequency, power = noise_power_spectrum(inner, _spacing(phantom), BINS)
    found = {"noise": float(inner.std(axis=(1, 2)).mean()), "NPS mean": 10 * spectral_mean(frequency, power)}
    if phantom.level in DOSES:
        return found | _detected(phantom, plain, restore)
    return found | {"bias": float(inner.mean())} | _hounsfield(phantom, restore) | _resolution(phantom, plain, restore)


def _detected(phantom: Phantom, plain: Image, restore: Any) -> dict[str, float]:
    """AUC of the observer and contrast gain of each insert."""
    middle = (plain.shape[-1] - 1) / 2
    centres = [(round(middle + RING * np.sin(angle)), round(middle + RING * np.cos(angle))) for angle in PLACES]
    shape = (plain.shape[1], plain.shape[2])
    found: dict[str, float] = {}
    for disc in INSERTS:
        signal = disc_signal(shape, centres, disc, spacing=SPACING, blur=BLUR)
        with_it = restore(phantom.images + signal)
        radius = disc.diameter / 2 / SPACING
        gains = [
            contrast_gains(before, after, signal, centres=centres, radius=radius)
            for before, after in zip(plain, with_it, strict=True)
        ]
        without, present = (
            np.stack([_region(one, centre) for one in images for centre in centres])
            for images in (plain[::2], with_it[1::2])
        )
        reading = read(without, present, disc.diameter / SPACING)
        found |= {
            f"AUC {disc.label}": reading.auc,
            f"spread AUC {disc.label}": reading.spread,
            f"gain {disc.label}": float(np.mean(gains)),
        }
    return found


def _hounsfield(phantom: Phantom, restore: Any) -> dict[str, float]:
    """Straight line through measured over true HU, and the largest error."""
    restored = restore(phantom.images + _hu_inserts()).mean(0)
    rows, columns = np.indices(restored.shape)
    means = [
        float(restored[np.hypot(rows - row, columns - column) * WATER_SPACING < CORE * HU_DIAMETER / 2].mean())
        for row, column in _ring(HU_RING, len(HU_INSERTS))
    ]
    slope, _ = np.polyfit(HU_INSERTS, means, 1)
    return {"HU slope": float(slope), "HU error": float(np.abs(np.subtract(means, HU_INSERTS)).max())}


def _hu_inserts() -> Image:
    """The inserts of the HU scale, to be added to water."""
    signal = np.zeros((SIZE, SIZE), np.float32)
    for hu, centre in zip(HU_INSERTS, _ring(HU_RING, len(HU_INSERTS)), strict=True):
        signal += disc_signal((SIZE, SIZE), [centre], Disc(HU_DIAMETER, hu), spacing=WATER_SPACING, blur=BLUR)
    return signal


def _resolution(phantom: Phantom, plain: Image, restore: Any) -> dict[str, float]:
    """MTF at the edges of discs of several contrasts."""
    centres, found = _ring(EDGE_RING, 4), {}
    for contrast in EDGES:
        disc = Disc(EDGE_DISC, contrast)
        signal = disc_signal((SIZE, SIZE), centres, disc, spacing=WATER_SPACING, blur=BLUR)
        response = (restore(phantom.images + signal) - plain).mean(0)
        edge = edge_response(response, centres, EDGE_DISC / 2 / WATER_SPACING)
        for level in (50, 10):
            found[f"MTF{level} {contrast} HU"] = 10 * mtf_at(edge, level / 100) / WATER_SPACING
    return found


def _restoring(method: Method, phantom: Phantom) -> Any:
    """Images -> restored images, one after the other."""
    facts = {"spacing": _spacing(phantom)}

    def restore(images: Image) -> Image:
        cases = (
            Case(str(k), phantom.level, clean=one[None], degraded=one[None], sigma=phantom.sigma, facts=facts)
            for k, one in enumerate(images.astype(np.float32))
        )
        return np.stack([method.restore(case)[0] for case in cases])

    return restore


def _peers(context: Context, phantoms: Sequence[Phantom]) -> list[Method]:
    """Peers, tuned at each of their levels."""
    if not context.peers:
        return []
    found: list[Method] = []
    for name in PEERS:
        tuning = [one.tuning for one in phantoms if name != "BM3D" or one.level in BM3D_LEVELS]
        found += peers.methods(
            [name], tuning, context.cache, scale=HU_SCALE, strengths=STRENGTHS, quality=window_psnr, first=1
        )
    return found


def _ring(radius: float, count: int) -> list[tuple[int, int]]:
    """Places on a circle of ``radius`` mm in the water."""
    angles = 2 * np.pi * np.arange(count) / count
    middle = (SIZE - 1) / 2
    return [
        (round(middle + radius / WATER_SPACING * np.sin(a)), round(middle + radius / WATER_SPACING * np.cos(a)))
        for a in angles
    ]


def _region(image: Image, centre: tuple[int, int]) -> Image:
    row, column = centre
    return image[row - HALF : row + HALF + 1, column - HALF : column + HALF + 1]


def _middle(images: Image) -> slice:
    middle = images.shape[-1] // 2
    return slice(middle - PATCH, middle + PATCH)


def _spacing(phantom: Phantom) -> float:
    return SPACING if phantom.level in DOSES else WATER_SPACING
