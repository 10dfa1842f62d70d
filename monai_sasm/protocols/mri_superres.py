"""``mri-superres``: twice and four times coarser MR, restored, and judged by a frozen segmenter of the hippocampus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation import judged_figures
from monai_sasm.evaluation.contenders import Contender, contender_methods, contenders
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import DataAbsentError, data_hash, scaled_slices
from monai_sasm.evaluation.judge import Judge, Regions, agreement, judge
from monai_sasm.evaluation.judged import DEGRADED, JUDGED, hallucinating, judged_rows
from monai_sasm.evaluation.metrics import psnr, ssim
from monai_sasm.evaluation.perceptual import PerceptualDistances
from monai_sasm.evaluation.restoring import as_file_order, pipeline_methods
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, degrade, measured
from monai_sasm.evaluation.table import Table
from monai_sasm.types import Modality

PROTOCOL = "mri-superres"
FAMILY = "superres_mri"
FACTORS = (2, 4)
SIGMA = 0.01  # of the complex noise, working scale
FIRST, LAST = 255, 300  # test cases; training ends at 210, validation at 254
SUBJECTS = 16  # of the test cases, evenly spaced: what one CPU core does in minutes
SEGMENTER = "segment_hippocampus_unet"
REGIONS = ("background", "anterior", "posterior")
FEATURE_SLICES = 3  # per volume, around its middle
LEAST = 11  # pixels a slice must have for SSIM
BORDER = 6  # pixels
GAIN = Gain("PSNR inside", DEGRADED)
DEFINITIONS = {
    "PSNR": "dB, whole volume, range 1 = 99.5th percentile of the foreground of the clean volume",
    "PSNR inside": f"the same without the {BORDER} pixels at the border of each slice, where what truncation smears "
    "comes round from the opposite side: the volumes are small pieces of a head, so that much of them is border",
    "SSIM": "same range, Gaussian 11x11, sigma 1.5, mean over slices",
    **GAIN.definition,
    **JUDGED,
    "M params": "millions of trained weights",
    "s/image": "median seconds per slice of about 35 x 50 pixels, slices restored in batches",
}


def run(context: Context) -> Table:
    """The test cases at factors 2 and 4: zero-filled, cubic, and every network of the family that is trained."""
    from monai_sasm.errors import BundleError

    try:
        segmenter = judge(context, SEGMENTER, REGIONS, exclusive=True)
    except BundleError as error:
        return Table(PROTOCOL, skipped=f"no judge: {error}")
    pairs = hippocampus_pairs(context.data / "seg_hippocampus", context.limit)
    distances = PerceptualDistances()
    cases = [case for factor in FACTORS for case in coarse_cases(pairs, factor)]
    networks, missing = contenders(context, FAMILY)
    methods = [
        Method("clean", lambda case: case.clean),
        Method("zero-filled", lambda case: case.degraded),
        Method("cubic", lambda case: cubic(case.degraded, case.facts["factor"])),
        *contender_methods(context.restorer, Modality.MR, networks),
        *pipeline_methods(context.restorer, Modality.MR),
    ]
    seconds: dict[str, list[float]] = {}
    results = {}
    for method in methods:
        found = measured(PROTOCOL, cases, method, measure=_measure(segmenter, distances), cache=context.cache)
        seconds[method.name] = [found[case.level, case.name]["seconds"] / len(case.clean) for case in cases]
        results[method.name] = found
    parameters = {one.name: one.parameters for one in networks}
    rows = judged_rows(cases, results, seconds=seconds, parameters=parameters, gain=GAIN)
    flags = (
        *context.limited(),
        *missing,
        *_who_sees_neighbours(networks),
        *hallucinating(rows, [contender.name for contender in networks if contender.sampled]),
        f"k-space cut to its central 1/2 or 1/4 along both axes of a slice, complex noise of {SIGMA:g} "
        "(monai_sasm.degradations.kspace.LowQualityMr), seed = number of the case",
        "cubic: the measured part of k-space becomes a small magnitude image, which a cubic spline enlarges",
        f"{len(pairs)} test cases, evenly spaced among those from {FIRST} to {LAST}",
        f"judge: {SEGMENTER}, trained on clean cases 1 to 210 and never on restored ones; both hippocampi of one "
        "person are two cases, so that intervals over cases are a little too narrow",
    )
    return Table(
        PROTOCOL,
        data_hash=data_hash([path for pair in pairs for path in (pair.image, pair.label)]),
        definitions=DEFINITIONS | distances.definitions(),
        rows=rows,
        flags=flags,
        figures=judged_figures.all_figures(
            context.output, PROTOCOL, cases, methods=methods, rows=rows, segment=_shown(segmenter)
        ),
    )


@dataclass(frozen=True)
class Pair:
    """One test case.

    Args:
        number: in its file name.
        image: NIfTI file.
        label: NIfTI file; 1 anterior, 2 posterior hippocampus.
    """

    number: int
    image: Path
    label: Path


def hippocampus_pairs(folder: Path, limit: int | None = None) -> list[Pair]:
    """:data:`SUBJECTS` of the cases :data:`FIRST` to :data:`LAST` in the Decathlon's layout, or the first ``limit``.

    Raises:
        DataAbsentError: there are none.
    """
    found = []
    for path in sorted((folder / "images").glob("*_[0-9]*.nii*")):
        number, label = int(path.name.split(".")[0].rsplit("_", 1)[1]), folder / "labels" / path.name
        if FIRST <= number <= LAST and label.is_file():
            found.append(Pair(number, path, label))
    if not found:
        raise DataAbsentError(folder)
    if limit is not None:
        return found[:limit]
    chosen = np.linspace(0, len(found) - 1, min(SUBJECTS, len(found))).round().astype(int)
    return [found[index] for index in chosen]


def coarse_cases(pairs: Sequence[Pair], factor: int) -> list[Case]:
    """Volumes as stacks of slices ``(N, H, W)`` in working scale, clean and with little k-space."""
    import nibabel

    from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr

    model = LowQualityMr(KspaceTruncation(factor=(factor, factor)), KspaceNoise(sigma=(SIGMA, SIGMA)))
    cases = []
    for pair in pairs:
        clean, volume = scaled_slices(pair.image)
        degraded = degrade(model, clean[:, None], seed=pair.number)[0][:, 0]
        header: Any = nibabel.load(pair.label)
        labels = np.asarray(header.dataobj).astype(np.uint8)
        facts: dict[str, Any] = {
            "factor": factor,
            "affine": volume.affine,
            "spacing": [float(size) for size in header.header.get_zooms()[:3]],
            "truth": {name: labels == index for index, name in enumerate(REGIONS) if index},
        }
        name = pair.image.name.split(".")[0]
        cases.append(Case(name, f"x{factor}", clean=clean, degraded=degraded, sigma=SIGMA, facts=facts))
    return cases


def cubic(stack: Image, factor: int) -> Image:
    """Zero-filled slices ``(N, H, W)`` -> small magnitude images of what was measured, enlarged by cubic splines.

    The grid points of both images that belong to one place are found from the centre of the Fourier transform, so that
    nothing is shifted.
    """
    import torch
    from scipy.ndimage import map_coordinates

    from monai_sasm.degradations.kspace import to_image, to_kspace

    size = stack.shape[1:]
    kept = [2 * int(np.ceil(length / factor / 2)) - 1 for length in size]  # as KspaceTruncation keeps
    box = [slice(length // 2 - few // 2, length // 2 + few // 2 + 1) for length, few in zip(size, kept, strict=True)]
    kspace = to_kspace(torch.from_numpy(np.ascontiguousarray(stack)))[:, box[0], box[1]]
    small = to_image(kspace).abs().numpy() * np.sqrt(np.prod(kept) / np.prod(size))
    axes = [(np.arange(length) - length // 2) * few / length + few // 2 for length, few in zip(size, kept, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    enlarged = [map_coordinates(image, places, order=3, mode="nearest") for image in small]
    return np.stack(enlarged).astype(np.float32)


def _measure(segmenter: Judge, distances: PerceptualDistances) -> Callable[[Case, Image], dict[str, float]]:
    def measure(case: Case, image: Image) -> dict[str, float]:
        found = segmenter.regions(as_file_order(image), case.facts["affine"])
        middle, inside = len(image) // 2, (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        chosen = range(max(middle - FEATURE_SLICES // 2, 0), min(middle + FEATURE_SLICES // 2 + 1, len(image)))
        features = [distances(case.clean[index][None], image[index][None]) for index in chosen]
        return {
            "PSNR": psnr(case.clean, image, 1.0),
            "PSNR inside": psnr(case.clean[inside], image[inside], 1.0) if case.clean[inside].size else float("nan"),
            "SSIM": ssim(case.clean, image, 1.0) if min(image.shape[1:]) >= LEAST else float("nan"),
            **{name: float(np.mean([entry[name] for entry in features])) for name in features[0]},
            **agreement(found, case.facts["truth"], case.facts["spacing"]),
        }

    return measure


def _shown(segmenter: Judge) -> Callable[[Case, Image], Regions]:
    """Regions as stacks of slices."""

    def regions(case: Case, image: Image) -> Mapping[str, NDArray[np.bool_]]:
        found = segmenter.regions(as_file_order(image), case.facts["affine"])
        return {name: region.transpose(2, 1, 0) for name, region in found.items()}

    return regions


def _who_sees_neighbours(networks: Sequence[Contender]) -> list[str]:
    names: dict[int, list[str]] = {}
    for one in networks:
        names.setdefault(one.bundle.neighbours, []).append(one.name)
    return [f"{', '.join(names[count])}: see {count} slices on each side" for count in sorted(names) if count]
