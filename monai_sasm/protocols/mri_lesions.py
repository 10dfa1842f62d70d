"""``mri-lesions``: white-matter-like lesions pasted into MR before noise, truncation or thick slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.evaluation import peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.contrast_gain import mean_and_error
from monai_sasm.evaluation.data import DataAbsentError, absent, data_hash, seed_of
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.mri_lesions import BALLS, ERASED, INVENTED, Ball, Placed, invented, place
from monai_sasm.evaluation.mri_noise import tuned_peers
from monai_sasm.evaluation.restoring import DEFAULT, as_file_order, our_methods, pipeline_methods, restoring, retrained
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, degrade, fingerprint, probe, rounded
from monai_sasm.evaluation.stacks import scaled_volume, stack_across, stack_affine
from monai_sasm.evaluation.statistics import Interval, grouped_interval
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.protocols.mri_heads import FOLDER, GROUPS
from monai_sasm.protocols.mri_superres import cubic
from monai_sasm.types import Modality

PROTOCOL = "mri-lesions"
NOISE = {"noise 1 %": 0.01, "noise 3 %": 0.03, "noise 6 %": 0.06}
TRUNCATION = {"truncated x2": 2}
THICK = {"slices of 3": 3, "slices of 5": 5}  # thin slices per thick one
TRUNCATION_NOISE = 0.01
INTERPOLATED = "cubic along slices"  # what makes slices thin without a network
DENOISER, SHARPENER = "noise_mri_unet", "superres_mri_unet"
WEIGHTS = (DENOISER, SHARPENER)  # experts whose further weights are compared
HEAD = 0.1  # working scale; below it lies air
DEPTH, REACH = 8, 2  # slices of a block, and on each side of where lesions lie
THIN_SLICES = 45  # of the part of a volume that is made thick: 9 of 5, 15 of 3
PEERS = ("NLM fast", "BM3D")
BM3D_LEVEL = "noise 3 %"
FLAIR = "mri/ms_patient*/*.nii.gz"  # thick slices, of two patients with lesions of their own
DEFINITIONS = {
    "signal": "recovered share of the signal of lesions of so many mm and per cent of white, summed where they lie; 1 "
    "is kept; [mean - standard error, mean + standard error] over lesions",
    "signal gain": f"of thick slices: mean over lesions of that share less that of '{INTERPOLATED}', lesion by lesion; "
    "[low, high] is its 95 % bootstrap interval, whole volumes drawn",
    "PSNR": "dB, thick slices made thin, without lesions, range 1 = white, where the clean volume is above "
    f"{HEAD:g} of it; mean over volumes",
    "PSNR gain": f"mean over volumes of PSNR less that of '{INTERPOLATED}' on the same; [low, high] is its 95 % "
    "bootstrap interval",
    "erased": f"share of all lesions with less than {ERASED:.0%} of their signal",
    "invented": f"blobs of at least {100 * INVENTED:g} % of white per volume in flat tissue that neither the clean "
    "volume nor what was restored has, without lesions",
}


@dataclass(frozen=True, eq=False)
class Pair:
    """A degraded stack without and with lesions, in working scale; ``start`` is the former on the grid of the truth."""

    level: str
    clean: Image
    start: Image
    plain: Case
    with_lesions: Case
    placed: Placed
    sides: tuple[float, ...]


@dataclass
class Counts:
    """What a method came to on a level."""

    shares: dict[Ball, list[list[float]]] = field(default_factory=dict)  # a list for each stack
    invented: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)  # of thick slices

    def add(self, balls: Sequence[Ball], found: dict[str, float]) -> None:
        """Note one stack, see :func:`_measured`."""
        for kind in BALLS:
            shares = [found[str(number)] for number, ball in enumerate(balls) if ball == kind]
            self.shares.setdefault(kind, []).append(shares)
        self.invented.append(found["invented"])
        if "psnr" in found:
            self.psnr.append(found["psnr"])

    def scores(self) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Metrics, and their means minus and plus a standard error."""
        values, limits = {}, {}
        for ball, stacks in self.shares.items():
            shares = list(chain(*stacks))
            if shares:
                mean, error = mean_and_error(shares)
                values[f"signal {ball.label}"] = mean
                limits[f"signal {ball.label}"] = (mean - error, mean + error)
        together = [share for stacks in self.shares.values() for share in chain(*stacks)]
        values["erased"] = float(np.mean(np.array(together) < ERASED)) if together else float("nan")
        values["invented"] = float(np.mean(self.invented))
        if self.psnr:
            values["PSNR"] = float(np.mean(self.psnr))
        return values, limits

    def gains(self, before: Counts) -> tuple[dict[str, float], dict[str, Interval]]:
        """What each kind of lesion has more than before, lesion by lesion, the PSNR, and 95 % intervals over stacks."""
        values, intervals = {}, {}
        for ball, stacks in self.shares.items():
            pairs = zip(stacks, before.shares[ball], strict=True)
            differences = [[a - b for a, b in zip(own, other, strict=True)] for own, other in pairs]
            if any(differences):
                name = Gain(f"signal {ball.label}").name
                values[name] = float(np.mean(list(chain(*differences))))
                intervals[name] = grouped_interval(differences)
        if self.psnr:
            name, gained = Gain("PSNR").name, [a - b for a, b in zip(self.psnr, before.psnr, strict=True)]
            values[name], intervals[name] = float(np.mean(gained)), grouped_interval([[one] for one in gained])
        return values, intervals


def run(context: Context) -> Table:
    """Six brains and a noisy head that nobody was trained on, and FLAIR and T1 of two patients."""
    subjects = _subjects(context)
    if not subjects:
        raise DataAbsentError(context.data / FOLDER)
    rows: dict[str, Row] = {}
    others = _peers(context)
    for level in (*NOISE, *TRUNCATION, *THICK):
        pairs = [pair for path in subjects for pair in _pairs(path, level)]
        interpolated: Counts | None = None
        for method in _methods(context, level, others):
            counts = Counts()
            for pair in pairs[: method.first]:
                counts.add(pair.placed.balls, _measured(context, method, pair))
            values, limits = counts.scores()
            gains, intervals = ({}, {}) if interpolated is None else counts.gains(interpolated)
            interpolated = counts if method.name == INTERPOLATED else interpolated
            before = rows.get(method.name, Row(method.name, {}, n={}, note=method.note))
            rows[method.name] = Row(
                method.name,
                {**before.scores, level: values | gains},
                n={**before.n, level: len(counts.invented)},
                note=method.note or before.note,
                intervals={**before.intervals, level: intervals},
                spreads={**before.spreads, level: limits},
            )
    return Table(
        PROTOCOL,
        data_hash=data_hash(subjects),
        definitions=DEFINITIONS,
        rows=tuple(rows.values()),
        flags=(
            *context.limited(),
            *absent(context.data, _patterns()),
            "lesions are balls at the most uniform places; truncation is in-plane and leaves 1 % of noise; n: volumes",
            f"{DEFAULT}: the gate decides, which calls no super-resolution; experts by name. Thick slices: sasm thin",
            "noise: seed from the names of file and level, the same without and with lesions",
            "peers are told the noise and tuned by PSNR in the head on a slice of TCGA-FG-6692; BM3D runs on the first "
            f"volume at {BM3D_LEVEL}",
        ),
    )


def _subjects(context: Context) -> list[Path]:
    return [path for pattern in _patterns() for path in sorted(context.data.glob(pattern))[: context.limit]]


def _patterns() -> list[str]:
    return [*(f"{FOLDER}/{pattern}" for pattern in GROUPS.values()), FLAIR]


def _pairs(path: Path, level: str) -> Iterator[Pair]:
    """The stacks of a volume at a level; none where its slices are too thick or too few for it."""
    from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr
    from monai_sasm.degradations.slice_profile import SliceProfile

    clean, sides = stack_across(*scaled_volume(path))
    depth = THIN_SLICES if level in THICK else DEPTH
    filled = np.flatnonzero((clean > HEAD).mean((1, 2)) > 0.05)
    first = int(filled[0] + filled[-1] - depth) // 2
    if first < 0 or first + depth > len(clean) or (level in THICK and sides[0] > 1.5):
        return
    clean = np.ascontiguousarray(clean[first : first + depth], np.float32)
    chosen = range(6, depth - 6, 5) if level in THICK else range(REACH, depth - REACH, 3)
    placed = place(clean, sides, list(chosen))
    name = path.name.split(".")[0]
    facts: dict[str, Any] = {"affine": stack_affine(sides)}
    if level in THICK:
        profile = SliceProfile(depth // THICK[level], depth)
        facts |= {"factor": THICK[level], "affine": stack_affine((sides[0] * THICK[level], sides[1], sides[2]))}
        stacks = [profile.measure(one).astype(np.float32) for one in (clean, clean + placed.signal)]
        sigma = 0.0
    else:
        sigma = NOISE.get(level, TRUNCATION_NOISE)
        model: Any = KspaceNoise(sigma=(sigma, sigma))
        if level in TRUNCATION:
            factor = TRUNCATION[level]
            facts["factor"] = factor
            model = LowQualityMr(KspaceTruncation(factor=(factor, factor)), model)
        seed = seed_of(name, level)
        stacks = [degrade(model, one[:, None], seed=seed)[0][:, 0] for one in (clean, clean + placed.signal)]
    plain, with_lesions = (Case(name, level, clean=clean, degraded=one, sigma=sigma, facts=facts) for one in stacks)
    start = profile.interpolate(stacks[0]).astype(np.float32) if level in THICK else stacks[0]
    yield Pair(level, clean, start, plain=plain, with_lesions=with_lesions, placed=placed, sides=sides)


def _peers(context: Context) -> list[Method]:
    """Peers for the levels of noise; BM3D for one of them."""
    if not context.peers:
        return []
    fast, slow = PEERS
    found = tuned_peers(context, [fast], NOISE) + tuned_peers(context, [slow], {BM3D_LEVEL: NOISE[BM3D_LEVEL]}, first=1)
    return [replace(method, restore=peers.slice_by_slice(method.restore)) for method in found]


def _methods(context: Context, level: str, others: Sequence[Method]) -> list[Method]:
    if level in THICK:
        return [_thin(context, INTERPOLATED, 0.0), *retrained(context, Modality.MR, SHARPENER, _thinning)]
    if level in TRUNCATION:
        return [
            Method("input", lambda case: case.degraded),
            Method("cubic", lambda case: cubic(case.degraded, case.facts["factor"])),
            *retrained(context, Modality.MR, SHARPENER, _named),
            *pipeline_methods(context.restorer, Modality.MR),
        ]
    found = [one for one in others if one.first is None or level == BM3D_LEVEL]
    ours = retrained(context, Modality.MR, DENOISER, our_methods)
    return [Method("input", lambda case: case.degraded), *found, *ours]


def _named(restorer: Any, modality: Modality, expert: str) -> list[Method]:
    return [Method(f"expert {expert}", restoring(restorer, modality, expert=expert), note="without the gate")]


def _thinning(restorer: Any, modality: Modality, expert: str) -> list[Method]:
    return [Method(f"expert {expert}", lambda case: _thinned(case, restorer, expert), note="without the gate")]


def _thin(context: Context, name: str, strength: float) -> Method:
    return Method(name, lambda case: _thinned(case, context.restorer, SHARPENER, strength))


def _thinned(case: Case, restorer: Any, expert: str, strength: float | None = None) -> Image:
    from monai_sasm.io.volume import Volume
    from monai_sasm.restoration.options import Thinning
    from monai_sasm.restoration.thin import thin_volume

    volume = Volume(as_file_order(case.degraded), Modality.MR, case.facts["affine"], slice_axis=2)
    options = Thinning(expert=expert, factor=float(case.facts["factor"]), strength=strength)
    result = thin_volume(volume, restorer, options).array
    return np.ascontiguousarray(result[0].transpose(2, 1, 0))


def _measured(context: Context, method: Method, pair: Pair) -> dict[str, float]:
    """``invented`` blobs, and the share of each lesion by its number; what peers came to is kept."""
    if not method.settings:
        return _scores(pair, method)
    blurred = rounded(_scores(pair, Method("blur", probe)))
    parts = fingerprint(pair.clean, pair.plain.degraded, pair.with_lesions.degraded, pair.plain.sigma, blurred)
    key = f"{PROTOCOL}|{method.name}|{method.settings}|{pair.level}|{pair.plain.name}|{parts}"
    found = context.cache.get(key)
    if found is None:
        found = _scores(pair, method)
        context.cache.put(key, found)
    return found


def _scores(pair: Pair, method: Method) -> dict[str, float]:
    plain = method.restore(pair.plain)
    shares = pair.placed.shares(method.restore(pair.with_lesions) - plain)
    found = {str(number): share for number, share in enumerate(shares)}
    found["invented"] = float(invented(pair.clean, pair.start, plain, sides=pair.sides))
    if pair.level in THICK:
        head = pair.clean > HEAD
        found["psnr"] = psnr(pair.clean[head], plain[head], 1.0)
    return found
