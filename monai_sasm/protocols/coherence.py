"""``coherence``: whether one organ is treated alike from slice to slice of a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.ct_denoising import EXPERT
from monai_sasm.evaluation.data import DataAbsentError, absent, data_hash, load
from monai_sasm.evaluation.restoring import DEFAULT
from monai_sasm.evaluation.scoring import degrade
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

PROTOCOL = "coherence"
FOLDER = "ct_volumes/totalsegmentator"
VOLUMES = {  # image and labels; one patient each
    "abdomen, 3 mm pixels": ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz"),
    "abdomen, 1 mm pixels": ("example_ct_dicom", "example_seg_dicom.nii.gz"),
}
TRAINED_ON = "abdomen, 1 mm pixels"  # see "First" in bundles/lowdose_ct_unet/docs/README.md
DOSES = {"dose 1/2": 0.5, "dose 1/4": 0.25}
ORGANS = {1: "spleen", 2: "right kidney", 3: "left kidney", 5: "liver", 6: "stomach", 7: "pancreas", 52: "aorta"}
FEWEST = 60  # pixels of an organ in a slice
DEFINITIONS = {
    "weight": "mean weight of the experts in the organs",
    "weight change": "mean over organs and adjacent slices of the change of an organ's mean weight",
    "largest": "largest such change",
    "noise": "HU, standard deviation of restored minus original in an organ's slice, mean",
    "noise change": "mean change of it between adjacent slices, as a share of their mean",
    "largest noise change": "largest such change",
}


@dataclass(frozen=True, eq=False)
class Labelled:
    """A volume with organs: originals, slices at a lower dose, and labels, all ``(N, H, W)``."""

    original: NDArray[np.float32]
    volume: Volume
    labels: NDArray[np.integer]


def run(context: Context) -> Table:
    """Two abdomens at half and quarter dose, simulated in the sinogram of each slice."""
    root, used = context.data / FOLDER, []
    rows = {name: Row(name, {}, n={}) for name in ("input", f"expert {EXPERT}", DEFAULT)}
    organs: dict[str, dict[str, float]] = {}
    for kind, (image, labels) in VOLUMES.items():
        if not (root / image).exists() or not (root / labels).exists():
            continue
        used += [path for path in (root / image, root / labels) if path.is_file()]
        used += sorted((root / image).iterdir()) if (root / image).is_dir() else []
        for dose_name, dose in DOSES.items():
            level = f"{kind}, {dose_name}"
            case = labelled(root / image, root / labels, dose, context.limit)
            for name, row in rows.items():
                after, weights = _restored(context, name, case)
                found, by_organ = _measured(case, after, weights)
                rows[name] = replace(row, scores={**row.scores, level: found}, n={**row.n, level: len(after)})
                if name == DEFAULT:
                    organs[level] = by_organ
    if not used:
        raise DataAbsentError(root)
    return Table(
        PROTOCOL,
        data_hash=data_hash(used),
        definitions=DEFINITIONS,
        rows=tuple(rows.values()),
        flags=(
            *context.limited(),
            *absent(root, [name for names in VOLUMES.values() for name in names]),
            f"{TRAINED_ON}: of the simulated pairs of {EXPERT}'s first round of training, no test of its noise",
            "noise: LowDoseCt, soft kernel, seed = number of the slice, on top of the images' own; labels are those of "
            "TotalSegmentator, model-made",
            f"organs: {', '.join(ORGANS.values())}, where at least {FEWEST} pixels; n: slices",
            f"{DEFAULT}: the whole volume at once; the gate decides",
        ),
        details={"mean weight by organ": organs},
    )


def labelled(image: Path, labels: Path, dose: float, limit: int | None = None) -> Labelled:
    """A volume at a lower dose with its organs; ``limit``: only so many slices, those with the most of them."""
    from monai_sasm.degradations.low_dose_ct import LowDoseCt
    from monai_sasm.functional.intensity import square_spacing

    volume, organs = load(image, Modality.CT), load_labels(labels, load(image, Modality.CT))
    axis = volume.slice_axis or 0
    model = LowDoseCt(square_spacing(volume), dose=(dose, dose), kernel="soft")
    original = np.moveaxis(volume.array[0], axis, 0)
    organs = np.moveaxis(organs, axis, 0)
    if limit is not None:
        filled = np.isin(organs, list(ORGANS)).sum((1, 2))
        first = int(np.argmax(np.convolve(filled, np.ones(min(limit, len(filled)), int), "valid")))
        original, organs = original[first : first + limit], organs[first : first + limit]
    noisy = np.stack([degrade(model, one[None, None].copy(), seed=k)[0][0, 0] for k, one in enumerate(original)])
    affine = np.asarray(volume.affine)
    part = Volume(np.ascontiguousarray(np.moveaxis(noisy, 0, axis)[None], np.float32), Modality.CT, affine, axis)
    return Labelled(np.ascontiguousarray(original), part, organs)


def load_labels(path: Path, volume: Volume) -> NDArray[np.integer]:
    """Labels of a NIfTI file on the grid of an image, whatever the order and direction of its axes.

    Raises:
        ValueError: the grids differ by more than that.
    """
    import nibabel

    stored = nibabel.Nifti1Image.from_filename(path)
    to_label = np.linalg.inv(np.asarray(stored.affine)) @ np.asarray(volume.affine)
    values, shape = np.asarray(stored.dataobj), volume.array.shape[1:]
    index = np.indices(shape).reshape(3, -1)
    places = np.rint(to_label[:3, :3] @ index + to_label[:3, 3:]).astype(int)
    inside = np.all((places >= 0) & (places < np.array(values.shape)[:, None]), axis=0)
    if inside.mean() < 0.95:
        raise ValueError("labels and image do not lie at the same place")
    found = np.zeros(index.shape[1], values.dtype)
    found[inside] = values[tuple(places[:, inside])]
    return found.reshape(shape)


def _restored(context: Context, name: str, case: Labelled) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Slices and weights ``(N, H, W)``."""
    axis = case.volume.slice_axis or 0
    if name == "input":
        return np.moveaxis(case.volume.array[0], axis, 0), np.zeros_like(case.original)
    expert = None if name == DEFAULT else EXPERT
    result = context.restorer(case.volume, expert=expert, keep_maps=True)
    weights = np.sum([maps for key, maps in result.weights.items() if key != "identity"], axis=0)
    return np.moveaxis(result.volume.array[0], axis, 0), np.broadcast_to(weights, case.original.shape)


def _measured(
    case: Labelled, after: NDArray[np.float32], weights: NDArray[np.float32]
) -> tuple[dict[str, float], dict[str, float]]:
    """All of :data:`DEFINITIONS`, and the mean weight of each organ."""
    change = after - case.original
    steps: list[float] = []
    noise_steps: list[float] = []
    means: dict[str, float] = {}
    noises: list[float] = []
    for label, organ in ORGANS.items():
        places = [one == label for one in case.labels]
        seen = [place.sum() >= FEWEST for place in places]
        weight = [
            float(one[place].mean()) if there else np.nan
            for one, place, there in zip(weights, places, seen, strict=True)
        ]
        noise = [
            float(one[place].std()) if there else np.nan for one, place, there in zip(change, places, seen, strict=True)
        ]
        if any(seen):
            means[organ] = float(np.nanmean(weight))
            noises += [one for one in noise if np.isfinite(one)]
        steps += _steps(weight)
        noise_steps += _steps(noise, relative=True)
    return {
        "weight": float(np.mean(list(means.values()))) if means else float("nan"),
        "weight change": float(np.mean(steps)) if steps else float("nan"),
        "largest": max(steps, default=float("nan")),
        "noise": float(np.mean(noises)) if noises else float("nan"),
        "noise change": float(np.mean(noise_steps)) if noise_steps else float("nan"),
        "largest noise change": max(noise_steps, default=float("nan")),
    }, means


def _steps(values: Sequence[float], *, relative: bool = False) -> list[float]:
    """Absolute differences of neighbours that are both known; relative to their mean if asked for."""
    found = []
    for one, other in pairwise(values):
        if np.isfinite(one) and np.isfinite(other):
            found.append(abs(other - one) / (max((one + other) / 2, 1e-9) if relative else 1.0))
    return found
