"""``mri-heads``: coarser MR of whole heads and brains that no network was trained on, cut along all three axes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monai_sasm.evaluation.contenders import Contender, contenders
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import DataAbsentError, data_hash
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import Case, Compared, average, compare
from monai_sasm.evaluation.table import Row, Table
from monai_sasm.protocols.mri_superres import BORDER, cubic

PROTOCOL = "mri-heads"
FAMILY = "superres_mri"
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
DEFINITIONS = {
    "PSNR": f"dB, range 1 = 99.5th percentile of the foreground of the clean volume, without the {BORDER} pixels at "
    f"the border of each slice; blocks of {DEPTH} slices at {', '.join(f'{place:.0%}' for place in PLACES)} of each of "
    "the three axes, mean over a volume's blocks, then over volumes",
    "gain": "dB over zero-filled, likewise",
    "p (U-Net)": "two-sided Wilcoxon signed-rank test over volumes; [low, high] are 95 % bootstrap intervals",
}
Restore = Callable[[NDArray[np.float32], int], NDArray[np.float32]]
"""(zero-filled stack ``(N, H, W)`` in working scale, factor) -> restored stack."""


def run(context: Context) -> Table:
    """Six brains and a noisy head, k-space cut to its central 1/2 and 1/4 along both axes of each slice."""
    root = context.data / FOLDER
    subjects = [
        (group, path) for group, pattern in GROUPS.items() for path in sorted(root.glob(pattern))[: context.limit]
    ]
    if not subjects:
        raise DataAbsentError("data not found")
    methods, missing = _methods(context)
    results: dict[str, dict[tuple[str, str], dict[str, float]]] = {name: {} for name in methods}
    cases = []
    for group, path in subjects:
        for factor in FACTORS:
            nothing = np.zeros((1, 1), np.float32)  # blocks are read when they are measured
            case = Case(path.name.split(".")[0], f"{group} x{factor}", nothing, nothing)
            cases.append(case)
            for name, found in _measured(path, factor, methods).items():
                results[name][case.level, case.name] = found
    compared = Compared("U-Net", ("PSNR", "gain"))
    rows: list[Row] = []
    for name in methods:
        row = average(name, cases, results[name])
        rows.append(compare(row, cases, results[name], results.get(compared.reference), compared))
    flags = (
        *context.limited(),
        *missing,
        f"complex noise of {SIGMA:g} of white (monai_sasm.degradations.kspace.LowQualityMr); hard edge; subjects were "
        "not trained on",
        "brains: extracted, 0.87 mm, little noise; heads: with skull and air, 1.33 mm, noisy, so that the truth itself "
        "holds noise that no method can give back",
        "networks see the neighbouring slices where they are made for it",
    )
    return Table(PROTOCOL, data_hash([path for _, path in subjects]), DEFINITIONS, tuple(rows), flags)


def _methods(context: Context) -> tuple[dict[str, Restore], tuple[str, ...]]:
    import torch

    methods: dict[str, Restore] = {"zero-filled": lambda stack, factor: stack, "cubic": cubic}
    networks, missing = contenders(context, FAMILY, ("unet",))
    methods |= {network.name: _any_factor(network) for network in networks}
    for label, path in context.weights.items():
        state = torch.load(path, map_location="cpu", weights_only=True)
        fresh = Context(context.data, context.output, context.device)
        found, _ = contenders(fresh, FAMILY, ("unet",))
        fresh.network(f"{FAMILY}_unet").load_state_dict(state)
        methods |= {f"{network.name} {label}": _any_factor(network) for network in found}
    return methods, missing


def _any_factor(network: Contender) -> Restore:
    """A network, which is not told the factor."""
    return lambda stack, factor: network.restore(stack)


def _measured(path: Path, factor: int, methods: dict[str, Restore]) -> dict[str, dict[str, float]]:
    """Method -> metric -> value of one volume."""
    scores: dict[str, list[float]] = {name: [] for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    count = 0
    for number, clean in enumerate(blocks(path)):
        coarse = _degraded(clean, factor, number)
        count += len(clean)
        for name, restore in methods.items():
            started = time.perf_counter()
            restored = restore(coarse, factor)
            seconds[name] += time.perf_counter() - started
            inner = (slice(REACH, -REACH), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
            scores[name].append(psnr(clean[inner], restored[inner], 1.0))
    before = float(np.mean(scores["zero-filled"]))
    return {
        name: {"PSNR": float(np.mean(found)), "gain": float(np.mean(found)) - before, "seconds": seconds[name] / count}
        for name, found in scores.items()
    }


def blocks(path: Path) -> Iterator[NDArray[np.float32]]:
    """Blocks ``(DEPTH + 2 REACH, H, W)`` of a volume along its three axes, working scale."""
    from monai_sasm.functional.intensity import scaling_for
    from monai_sasm.io.formats import open_images
    from monai_sasm.types import Modality

    volume = next(open_images(path, Modality.MR))
    scaled = scaling_for(volume).forward(volume.array)[0]
    for axis in range(3):
        stack = np.moveaxis(scaled, axis, 0)
        filled = np.flatnonzero((stack > 0.1).mean((1, 2)) > 0.02)  # slices with something in them
        for place in PLACES:
            first = int(filled[0] + place * (filled[-1] - filled[0])) - DEPTH // 2 - REACH
            yield np.ascontiguousarray(stack[first : first + DEPTH + 2 * REACH], np.float32)


def _degraded(clean: NDArray[np.float32], factor: int, seed: int) -> NDArray[np.float32]:
    import torch

    from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr

    model = LowQualityMr(KspaceTruncation(factor=(factor, factor)), KspaceNoise(sigma=(SIGMA, SIGMA)))
    batch = torch.from_numpy(clean)[:, None]
    count, channels, height, width = batch.shape
    params = model.draw((count, channels, height, width), torch.Generator().manual_seed(seed))
    return model.apply(batch, params)[:, 0].numpy()
