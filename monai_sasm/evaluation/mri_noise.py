"""What the protocols of MR noise share: slices of a file, Rician noise, and peers tuned on a patient of no test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import scaled_slices, seed_of
from monai_sasm.evaluation.metrics import psnr
from monai_sasm.evaluation.scoring import Case, Image, Method, degrade

HEAD = 0.1  # of white; above it is tissue
SLICES = 5  # per volume, around its middle
STEP = 3  # slices apart
TUNING = "mri/tumour_TCGA-FG-6692_native/t1c.nii.gz"
STRENGTHS = {"BM3D": (0.8, 1.0, 1.3)}
FACTOR, APODISATION = 1.5, 0.4  # of filtered noise: samples of an axis that were not measured, and the window's fall


def percent(level: float) -> str:
    """A noise level as printed, ``6 %``."""
    return f"{100 * level:g} %"


def central_slices(path: Path) -> list[tuple[str, Image]]:
    """Named slices ``(1, H, W)`` around the middle of a volume, in working scale."""
    scaled, _ = scaled_slices(path)
    return [
        (f"{path.name.split('.')[0]}_{index}", np.ascontiguousarray(scaled[index][None]))
        for index in central_indices(len(scaled))
    ]


def central_indices(count: int) -> list[int]:
    """Which of ``count`` slices are looked at: :data:`SLICES` around the middle, :data:`STEP` apart."""
    middle = count // 2
    return [middle + STEP * k for k in range(-(SLICES // 2), SLICES - SLICES // 2)]


def noisy_cases(
    slices: Sequence[tuple[str, Image]], levels: Sequence[float], patients: Mapping[str, str] | None = None
) -> list[Case]:
    """Rician versions of clean slices ``(1, H, W)`` in working scale, at every level; seed = number of the slice.

    ``patients``: name of a slice -> whose it is.
    """
    from monai_sasm.degradations.kspace import KspaceNoise

    return [
        Case(
            name,
            percent(level),
            clean=clean,
            degraded=degrade(KspaceNoise(sigma=(level, level)), clean[None], seed=number)[0][0],
            sigma=level,
            patient=(patients or {}).get(name, ""),
        )
        for level in levels
        for number, (name, clean) in enumerate(slices)
    ]


def filtered(level: float) -> str:
    """A level of filtered noise as printed, ``filtered, 6 %``."""
    return f"filtered, {percent(level)}"


def filtered_cases(slices: Sequence[tuple[str, Image]], levels: Sequence[float]) -> list[Case]:
    """Clean slices ``(1, H, W)`` in working scale, noise and slice filtered by one reconstruction, at every level.

    The reference is the filtered slice without noise: what a scanner without noise would have shown.
    """
    import torch

    from monai_sasm.degradations.filtered_noise import FilteredNoise

    cases = []
    for level in levels:
        model = FilteredNoise((level, level), (FACTOR, FACTOR), (APODISATION, APODISATION))
        for name, clean in slices:
            degraded, params = degrade(model, clean[None], seed=seed_of(name, filtered(level)))
            wanted = model.reference(torch.from_numpy(clean[None]), params).numpy()
            cases.append(Case(name, filtered(level), clean=wanted[0], degraded=degraded[0], sigma=level))
    return cases


def tuned_peers(
    context: Context,
    names: Sequence[str],
    levels: Mapping[str, float],
    *,
    first: int | None = None,
    filtered_levels: Sequence[float] = (),
) -> list[Method]:
    """Peers for single slices, tuned by PSNR in the head on a slice of :data:`TUNING`, at each noise apart.

    Args:
        context: data, and the cache of the tuning.
        names: keys of :data:`monai_sasm.evaluation.peers.PEERS`.
        levels: level of the cases -> noise; all levels of one noise share a strength.
        first: volumes per level for the peers that are too slow for all; ``None`` for all.
        filtered_levels: of :func:`filtered_cases`, at which they are tuned as well.
    """
    noises = sorted(set(levels.values()))
    one = central_slices(context.data / TUNING)[:1]
    return peers.methods(
        names,
        noisy_cases(one, noises) + filtered_cases(one, filtered_levels),
        context.cache,
        strengths=STRENGTHS,
        quality=head_psnr,
        first=first,
        tuned_at={level: percent(noise) for level, noise in levels.items()}
        | {level: level for level in map(filtered, filtered_levels)},
    )


def head_psnr(case: Case, image: Image) -> float:
    """PSNR of the pixels above :data:`HEAD` in the clean image, range 1, dB."""
    head = case.clean > HEAD
    return psnr(case.clean[head], image[head], 1.0)
