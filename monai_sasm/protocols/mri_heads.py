"""``mri-heads``: coarser MR of whole heads and brains that no network was trained on, cut along all three axes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from monai_sasm.evaluation.contenders import Contender, contender_methods, contenders
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import DataAbsentError, absent, data_hash, seed_of
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.restoring import pipeline_methods, with_weights
from monai_sasm.evaluation.scoring import Case, Compared, Method, Tally, compare, degrade
from monai_sasm.evaluation.stacks import scaled_volume, stack_across, stack_affine
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.mri_superres import BORDER, cubic
from monai_sasm.types import Modality

PROTOCOL = "mri-heads"
FAMILY = "superres_mri"
WEIGHTS = ("superres_mri_unet",)  # experts whose further weights are compared
NETWORKS = ("unet", "esrgan", "dit", "sit")
FOLDER = "mri_whole_head"
GROUPS = {  # pattern of files; subjects that are trained on by nobody
    "brains": "ds002748/*sub-6[1-6]*_T1w*.nii.gz",
    "heads": "ds000011/*sub-11*_T1w*.nii.gz",
}
FACTORS = (2, 4)
SIGMA = 0.01  # of the complex noise, working scale
REACH = 2  # slices on each side of a block that are seen and not measured
DEPTH = 4  # slices of a block
PLACES = (0.35, 0.5, 0.65)  # of the blocks, share of the axis
_NOTHING = np.empty(0, np.float32)  # a volume is measured block by block
DEFINITIONS = {
    "PSNR": f"dB, range 1 = 99.5th percentile of the foreground of the clean volume, without the {BORDER} pixels at "
    f"the border of each slice; blocks of {DEPTH} slices at {', '.join(f'{place:.0%}' for place in PLACES)} of each of "
    "the three axes, mean over a volume's blocks, then over volumes",
    "gain": "dB over zero-filled, likewise",
    "p (U-Net)": "two-sided Wilcoxon signed-rank test over volumes; [low, high] are 95 % bootstrap intervals",
}


def run(context: Context) -> Table:
    """Six brains and a noisy head, k-space cut to its central 1/2 and 1/4 along both axes of each slice."""
    root = context.data / FOLDER
    subjects = [
        (group, path) for group, pattern in GROUPS.items() for path in sorted(root.glob(pattern))[: context.limit]
    ]
    if not subjects:
        raise DataAbsentError(root)
    methods, missing = _methods(context)
    tally, cases = Tally(), []
    for group, path in subjects:
        for factor in FACTORS:
            case = Case(path.name.split(".")[0], f"{group} x{factor}", clean=_NOTHING, degraded=_NOTHING)
            cases.append(case)
            for name, found in _measured(path, factor, methods).items():
                seconds = found.pop("seconds")
                tally.add(name, case, found, seconds=seconds)
    compared = Compared("U-Net", ("PSNR", "gain"))
    reference = tally.scores.get(compared.reference)
    return Table(
        PROTOCOL,
        data_hash=data_hash([path for _, path in subjects]),
        definitions=DEFINITIONS,
        rows=tuple(
            compare(row, cases, tally.scores[row.method], reference=reference, compared=compared)
            for row in tally.rows(cases)
        ),
        flags=(
            *context.limited(),
            *absent(root, GROUPS.values()),
            *missing,
            f"complex noise of {SIGMA:g} of white (monai_sasm.degradations.kspace.LowQualityMr); hard edge; each "
            "block has a seed of its own",
            "subjects were not trained on; brain 61 and head 11 were the validation of superres_mri_unet",
            "brains: extracted, 0.87 mm, little noise; heads: with skull and air, 1.33 mm, noisy, so that the truth "
            "itself holds noise that no method can give back",
            "networks see the neighbouring slices where they are made for it",
        ),
    )


def _methods(context: Context) -> tuple[list[Method], tuple[str, ...]]:
    networks, missing = contenders(context, FAMILY, NETWORKS, steps=(1,))
    retrained = [
        Contender(f"{one.name} {label}", with_weights(one.bundle, path))
        for one in networks
        if one.bundle.name in WEIGHTS
        for label, path in context.weights_of(one.bundle.name).items()
    ]
    methods = [
        Method("zero-filled", lambda case: case.degraded),
        Method("cubic", lambda case: cubic(case.degraded, case.facts["factor"])),
        *contender_methods(context.restorer, Modality.MR, [*networks, *retrained]),
        *pipeline_methods(context.restorer, Modality.MR),
    ]
    return methods, missing


def _measured(path: Path, factor: int, methods: Sequence[Method]) -> dict[str, dict[str, float]]:
    """Method -> metric -> value of one volume, ``seconds`` per slice among them."""
    scores: dict[str, list[float]] = {method.name: [] for method in methods}
    seconds = dict.fromkeys(scores, 0.0)
    count = 0
    for case in block_cases(path, factor):
        count += len(case.clean)
        for method in methods:
            started = time.perf_counter()
            restored = method.restore(case)
            seconds[method.name] += time.perf_counter() - started
            inner = (slice(REACH, -REACH), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
            scores[method.name].append(psnr(case.clean[inner], restored[inner], 1.0))
    before = float(np.mean(scores["zero-filled"]))
    return {
        name: {"PSNR": float(np.mean(found)), "gain": float(np.mean(found)) - before, "seconds": seconds[name] / count}
        for name, found in scores.items()
    }


def block_cases(path: Path, factor: int) -> Iterator[Case]:
    """Blocks ``(DEPTH + 2 REACH, H, W)`` of a volume along its three axes, in working scale, clean and coarse."""
    from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr

    model = LowQualityMr(KspaceTruncation(factor=(factor, factor)), KspaceNoise(sigma=(SIGMA, SIGMA)))
    name = path.name.split(".")[0]
    scaled, sides, _ = scaled_volume(path)
    for axis in range(3):
        stack, lengths = stack_across(scaled, sides, axis)
        facts = {"factor": factor, "affine": stack_affine(lengths)}
        filled = np.flatnonzero((stack > 0.1).mean((1, 2)) > 0.02)  # slices with something in them
        for place in PLACES:
            first = int(filled[0] + place * (filled[-1] - filled[0])) - DEPTH // 2 - REACH
            clean = np.ascontiguousarray(stack[first : first + DEPTH + 2 * REACH], np.float32)
            coarse = degrade(model, clean[:, None], seed=seed_of(name, f"x{factor}", axis, place))[0][:, 0]
            yield Case(f"{axis} {place:g}", f"x{factor}", clean=clean, degraded=coarse, sigma=SIGMA, facts=facts)
