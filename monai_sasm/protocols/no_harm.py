"""``no-harm``: clean images that nobody was trained on, through the default pipeline, and how much it changes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_sasm.errors import RefusedError
from monai_sasm.evaluation import peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.contrast_gain import Disc, contrast_gains, disc_signal, uniform_places
from monai_sasm.evaluation.data import DataAbsentError, absent, data_hash
from monai_sasm.evaluation.qualify_sample import Image, Sample, sampled, usable_slices
from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.scoring import Case
from monai_sasm.evaluation.some_slices import Outcome, RestoreSome, by_plan
from monai_sasm.evaluation.statistics import CONFIDENCE, conformal_bound
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.io.entry import Entry
from monai_sasm.io.formats import inventory
from monai_sasm.io.volume import Volume
from monai_sasm.protocols.mri_heads import FOLDER, GROUPS
from monai_sasm.types import Modality

PROTOCOL = "no-harm"
WANTED = 210  # images per modality
# Full dose, no fault added, and trained on by no expert, gate or refiner ("Data" in bundles/*/docs/README.md). What a
# pattern finds below the data root is one patient; of photos each file is one scene.
SOURCES = {
    Modality.CT: (
        "ct_volumes/totalsegmentator/example_ct.nii.gz",
        "ct_volumes/ge_head_tilt_varspacing",
        "ct_ldct_pairs/L096_dicom/full",
        "ct_full/LungFCP_thorax_dicom",
        "ct_full/C3L-00189_abdomen_dicom",
    ),
    Modality.MR: (
        "mri/ms_patient04",
        "mri/ms_patient20",
        *(f"{FOLDER}/{pattern}" for pattern in GROUPS.values()),
        "brats/brats18_4mod/*",
    ),
    Modality.PHOTO: (
        "natural/bsds500/val/*",
        "natural/set12/*",
        "natural/cc15/*_mean.png",
        "natural/kodak/*",
        "natural/mcmaster/*",
    ),
}
LABEL_MAPS = "_seg.nii.gz"  # ends of names beside the images
UNITS = {Modality.CT: "HU", Modality.MR: "% of white", Modality.PHOTO: "of 255"}
TOUCHED = {
    Modality.CT: 0.5,
    Modality.MR: 0.1,
    Modality.PHOTO: 0.25,
}  # mean change from which an image counts as touched
SPOTS = (Disc(4, 12), Disc(8, 6), Disc(4, -12), Disc(8, -6))  # of photos, pixels and levels of 255
SPOT_BLUR, SPOT_GAP, SPOT_SPREAD, SPOTS_EACH = 0.6, 40.0, 30.0, 4  # pixels, pixels, levels
DEFINITIONS = {
    "touched": "share of the images that change by more than "
    + ", ".join(f"{TOUCHED[one]:g} {UNITS[one]} ({one.value})" for one in UNITS)
    + " on average",
    "change": "mean absolute change: HU, % of white, levels of 255; mean over images",
    "change 99 %": "99th percentile of it over an image's pixels; mean over images",
    "gain": "contrast gain of small faint discs (those of sasm qualify; photos: 4 and 8 pixels, 12 and 6 levels) in "
    "each image's most uniform places; mean over images",
    "loss 95 %": "95th percentile of 1 - gain of these images",
    "units": "patients of CT and MR, or photos: each is a draw of its own, which the slices of a series are not",
    "loss bound": f"what 1 - gain (mean over the images of a unit) of one more unit of the kind stays below with "
    f"{CONFIDENCE:.0%} probability (conformal); - is not known, for want of units",
}


@dataclass(frozen=True)
class Clean:
    """One image, its source below the data root, and the patient or photo that it is of."""

    source: str
    unit: str
    entry: Entry


@dataclass(frozen=True)
class Harm:
    """What became of one clean slice or photo of a unit; ``gain`` is NaN where it has no uniform place."""

    unit: str

    change: float
    change_99: float
    gain: float


def run(context: Context) -> Table:
    """About :data:`WANTED` images of each modality; a flag where there are fewer."""
    rows: dict[str, Row] = {}
    used: list[Path] = []
    counts: dict[str, dict[str, int]] = {}
    refused: dict[Path, str] = {}
    for modality in SOURCES:
        found = _clean_images(context.data, modality, context.limit)
        if not found:
            continue
        used += [path for one in found for path in one.entry.paths]
        share = _share(found, modality, context.limit)
        for name, restore, note in _methods(context, modality):
            harms: list[Harm] = []
            for one in found:
                try:
                    mine = _harms(one, restore, share)
                except RefusedError as error:
                    refused[one.entry.paths[0].relative_to(context.data)] = str(error)
                    continue
                harms += mine
                counts.setdefault(modality.value, {}).setdefault(one.source, 0)
                counts[modality.value][one.source] += len(mine) if name == DEFAULT else 0
            rows[name] = _extended(rows.get(name, Row(name, {}, n={}, note=note)), modality, harms)
    if not rows:
        raise DataAbsentError(f"no CT, MR or photos in {context.data}")
    return Table(
        PROTOCOL,
        data_hash=data_hash(used),
        definitions=DEFINITIONS,
        rows=tuple(rows.values()),
        flags=(
            *context.limited(),
            *absent(context.data, [source for sources in SOURCES.values() for source in sources]),
            *_left_out(refused),
            "no expert, gate or refiner was trained on these images; BSDS500 val, Set12, CC15 and L096 were looked at "
            "while weights were chosen",
            *_few(counts),
            "clean: as published, no fault added; full dose has noise of its own, and a gate may rightly lower it",
            "slices are taken evenly from each series and restored as in the whole series; photos whole",
            f"{DEFAULT}: the gate decides; peers are told the noise that the pipeline's estimator reads, and not tuned",
        ),
        details={"images": counts},
    )


def _left_out(refused: Mapping[Path, str]) -> Iterator[str]:
    """What is said of images that were refused when they were read or restored."""
    if refused:
        place, reason = next(iter(refused.items()))
        yield f"**{len(refused)} images are left out**, {place.as_posix()} among them: {reason}"


def _few(counts: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """What is said where there are fewer images than wanted."""
    for modality, images in counts.items():
        if 0 < sum(images.values()) < WANTED:
            most = max(images, key=lambda source: images[source])
            yield (
                f"**{modality}: {sum(images.values())} images instead of {WANTED}**, {images[most]} of them from {most}"
            )


def _clean_images(root: Path, modality: Modality, limit: int | None) -> list[Clean]:
    """Of all that can be read; ``limit`` of each source."""
    found = []
    kind = None if modality is Modality.PHOTO else modality
    for source in SOURCES[modality]:
        images = [
            Clean(source, path.relative_to(root).as_posix(), one)
            for path in sorted(root.glob(source))
            for one in inventory(path, kind)
            if one.refusal is None and one.modality is modality and not one.paths[0].name.endswith(LABEL_MAPS)
        ]
        found += images[:limit]
    return found


def _share(found: Sequence[Clean], modality: Modality, limit: int | None) -> int:
    """Slices per series: as many as make :data:`WANTED` where the longest give what the shortest lack."""
    if modality is Modality.PHOTO:
        return 1
    if limit is not None:
        return limit
    lengths = [_length(one.entry) for one in found]
    each = 1
    while sum(min(each, length) for length in lengths) < WANTED and each < max(lengths):
        each += 1
    return each


def _length(entry: Entry) -> int:
    """Slices of an image that can be measured."""
    try:
        return usable_slices(entry.load())
    except RefusedError:
        return 0


def _methods(context: Context, modality: Modality) -> list[tuple[str, RestoreSome, str]]:
    found: list[tuple[str, RestoreSome, str]] = []
    if context.peers:
        scale = {Modality.CT: 1000.0}.get(modality, 1.0)
        method = peers.methods(("NLM fast",), [], context.cache, scale=scale, strengths={"NLM fast": (0.8,)})[0]
        found.append(("NLM fast", partial(_by_peer, context, method), method.note))
    return [
        *found,
        (DEFAULT, by_plan(context.restorer.plan(modality)), "gate and experts, as `sasm restore` runs them"),
    ]


def _by_peer(context: Context, method: Any, volume: Volume, indices: Sequence[int]) -> Outcome:
    import torch

    from monai_sasm.functional.intensity import scalings_for
    from monai_sasm.functional.noise import noise_level

    restored, levels = [], []
    whites = np.array(
        [one.scale if volume.modality is Modality.MR else 1.0 for one in scalings_for(volume)], np.float32
    )
    units = whites[list(indices), None, None, None]
    for one in volume.as_slices()[list(indices)] / units:
        levels += noise_level(context.restorer.noise_estimator(torch.from_numpy(np.ascontiguousarray(one[None]))))
        restored.append(method.restore(Case("", "", clean=one, degraded=one, sigma=levels[-1])))
    return Outcome(np.stack(restored).astype(np.float32) * units, {}, float(np.median(levels)))


def _harms(clean: Clean, restore: RestoreSome, count: int) -> list[Harm]:
    volume = clean.entry.load()
    if volume.modality.profile.is_picture:
        return [_photo(volume, restore, clean.unit)]
    sample = sampled(volume, restore, count)
    return [_slice(sample, number, clean.unit) for number in range(len(sample.before))]


def _slice(sample: Sample, number: int, unit: str) -> Harm:
    gains: list[float] = []
    for disc, centre in sample.places[number]:
        radius = disc.diameter / 2 / sample.spacing
        signal = sample.lesions[number]
        response = sample.response(1.0)[number]
        gains += contrast_gains(np.zeros_like(signal), response, signal, centres=[centre], radius=radius)
    return _harm(unit, sample.after[number] - sample.before[number], gains)


def _photo(volume: Volume, restore: RestoreSome, unit: str) -> Harm:
    """Photos in levels of 255; spots of grey in their most uniform places."""
    grey = 255 * volume.array.mean(0)
    places = uniform_places(grey, 1.0, span=(15, 240), spread=SPOT_SPREAD, radius=6.0, gap=SPOT_GAP, count=SPOTS_EACH)
    kinds = list(zip(SPOTS, places, strict=False))
    signal = np.zeros_like(grey)
    for disc, centre in kinds:
        signal += disc_signal((grey.shape[0], grey.shape[1]), [centre], disc, spacing=1.0, blur=SPOT_BLUR)
    plain = restore(volume, [0]).after[0]
    with_spots = restore(volume.with_array(volume.array + signal / 255), [0]).after[0]
    response = 255 * (with_spots - plain).mean(0)
    gains: list[float] = []
    for disc, centre in kinds:
        none = np.zeros_like(signal)
        gains += contrast_gains(none, response, signal, centres=[centre], radius=disc.diameter / 2)
    return _harm(unit, 255 * (plain - volume.array), gains)


def _harm(unit: str, change: Image, gains: Sequence[float]) -> Harm:
    size = np.abs(change)
    gain = float(np.mean(gains)) if gains else float("nan")
    return Harm(unit, float(size.mean()), float(np.percentile(size, 99)), gain)


def _extended(row: Row, modality: Modality, harms: Sequence[Harm]) -> Row:
    """A row with the level of a modality."""
    gains: dict[str, list[float]] = {}
    for one in harms:
        if np.isfinite(one.gain):
            gains.setdefault(one.unit, []).append(one.gain)
    known = np.array([gain for found in gains.values() for gain in found])
    values = {
        "touched": float(np.mean([one.change > TOUCHED[modality] for one in harms])),
        "change": float(np.mean([one.change for one in harms])),
        "change 99 %": float(np.mean([one.change_99 for one in harms])),
        "gain": float(known.mean()) if len(known) else float("nan"),
        "loss 95 %": float(np.percentile(1 - known, 95)) if len(known) else float("nan"),
        "loss bound": conformal_bound([1 - float(np.mean(found)) for found in gains.values()]),
        "units": float(len(gains)),
        "with lesions": float(len(known)),
    }
    level = modality.value
    return Row(row.method, {**row.scores, level: values}, n={**row.n, level: len(harms)}, note=row.note)
