"""``mri-noise``: Rician noise at three levels on slices and volumes of subjects that no training has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from monai_sasm.evaluation import figures, peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import absent, data_hash, files, seed_of
from monai_sasm.evaluation.metrics import bias, gradient_ratio, psnr, ssim
from monai_sasm.evaluation.mri_noise import (
    APODISATION,
    FACTOR,
    HEAD,
    SLICES,
    STEP,
    central_slices,
    filtered_cases,
    head_psnr,
    noisy_cases,
    percent,
    tuned_peers,
)
from monai_sasm.evaluation.restoring import our_methods, restoring
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, degrade, score
from monai_sasm.evaluation.stacks import scaled_volume, stack_across, stack_affine
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.mri_heads import FOLDER, GROUPS
from monai_sasm.types import Modality

PROTOCOL = "mri-noise"
EXPERT = "noise_mri_unet"
LEVELS = (0.03, 0.06, 0.12)  # of the volume's white (99.5th percentile of the foreground)
FILTERED = (0.03, 0.06)
REACH = 2  # slices on each side of a stack that are seen and not measured
DEPTH = 3  # slices of a stack that are measured
PEERS = ("BM3D", "NLM fast", "curvature flow")
RICIAN_MEAN = 1.5708  # (pi / 2): squared mean of pure Rician noise over sigma^2
GAIN = Gain("PSNR head")
DEFINITIONS = {
    "PSNR": "dB, whole slice, range 1 = 99.5th percentile of the volume's foreground, mean over slices",
    "PSNR head": f"dB, same range, only pixels above {HEAD:g} in the clean slice (background noise floor left out)",
    "SSIM": "same range, Gaussian 11x11, sigma 1.5",
    "bias": "mean of restored minus clean in the head, in % of the range (magnitude images are biased upwards)",
    "gradient": "mean gradient magnitude over that of the clean slice",
    **GAIN.definition,
}


def run(context: Context) -> Table:
    """Levels ``3 %``, ``6 %``, ``12 %`` on slices of FLAIR and T1 of two patients with multiple sclerosis, and on
    stacks of slices of T1 brains and a head, whose slices are as close as their pixels; filtered noise on one of each.
    """
    used, isotropic = volumes(context.data), isotropic_volumes(context.data)
    cases = single_cases(used, context.limit)
    cases += [case for path in isotropic[: context.limit] for case in noisy_stacks(path)]
    cases += filtered_cases([middle_slice(path) for path in isotropic[: context.limit]], FILTERED)
    methods = [Method("input", lambda case: case.degraded)]
    if context.peers:
        noises = {name: level for level in LEVELS for name in (percent(level), _stacks(level))}
        plain = tuned_peers(context, PEERS, noises, filtered_levels=FILTERED)
        # the corrected rows reuse what the plain ones have just computed
        plain = [
            replace(method, restore=lru_cache(maxsize=None)(peers.slice_by_slice(method.restore, REACH)))
            for method in plain
        ]
        methods += plain + [_unbiased(method) for method in plain[:2]]
    methods += our_methods(context.restorer, Modality.MR, EXPERT, sigma_known=True)
    eight = restoring(context.restorer, Modality.MR, expert=EXPERT, self_ensemble=8)
    methods.append(Method(f"expert {EXPERT}, x8 self-ensemble", eight, note="`--self-ensemble 8`"))
    rows = score(PROTOCOL, cases, methods, measure=measure, cache=context.cache, gain=GAIN)
    example = next(case for case in cases if case.level == percent(LEVELS[1]))
    return Table(
        PROTOCOL,
        data_hash=data_hash([*used, *isotropic]),
        definitions=DEFINITIONS,
        rows=tuple(rows),
        flags=(
            *context.limited(),
            *absent(context.data / FOLDER, GROUPS.values()),
            "noise: monai_sasm.degradations.kspace.KspaceNoise (complex Gaussian, magnitude), seed = number of the "
            "slice; of a stack: from the names of file and level",
            f"{SLICES} slices around the middle of each volume, {STEP} apart; peers are tuned by PSNR in the head on a "
            "slice of TCGA-FG-6692, and have the same strength on stacks of the same noise",
            "the clean slices carry the scanner's own noise, FLAIR about 3 % of white and filtered: single slices "
            "reward what leaves it in; protocol mri-repeat measures it",
            f"filtered: the middle slices of the stacks' volumes, noise and slice together reconstructed from 1 / "
            f"{FACTOR} of the samples of each axis under a Tukey window ({APODISATION}); the reference has no noise",
            f"stacks: {DEPTH} slices around the middle of six brains (ds002748) and a head (ds000011), along the first "
            f"axis; {REACH} more on each side are seen by what looks at neighbours, not measured; peers restore slice "
            "by slice",
        ),
        figures=(
            figures.comparison(context.output / f"{PROTOCOL}.png", example, methods, quality=_head_psnr, error=0.15),
        ),
    )


def volumes(root: Path) -> list[Path]:
    """FLAIR and T1 of the two test patients."""
    folders = [root / "mri" / name for name in ("ms_patient04", "ms_patient20")]
    return [path for folder in folders for path in files(folder, "*.nii.gz")]


def isotropic_volumes(root: Path) -> list[Path]:
    """T1 of the brains and the head that super-resolution is tested on, too."""
    return [path for pattern in GROUPS.values() for path in sorted((root / FOLDER).glob(pattern))]


def single_cases(used: Sequence[Path], limit: int | None = None) -> list[Case]:
    """Rician versions of the first ``limit`` slices of volumes, each in the folder of its patient, at every level."""
    owned = [(path.parent.name, *named) for path in used for named in central_slices(path)][:limit]
    patients = {name: patient for patient, name, _ in owned}
    return noisy_cases([(name, image) for _, name, image in owned], LEVELS, patients)


def middle_slice(path: Path) -> tuple[str, Image]:
    """Name and middle slice ``(1, H, W)`` along the first axis of a volume, working scale."""
    slices, _ = stack_across(*scaled_volume(path))
    return path.name.split(".")[0], np.ascontiguousarray(slices[len(slices) // 2][None], np.float32)


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS`."""
    clean, restored = _inner(case.clean), _inner(image)
    return {
        "PSNR": psnr(clean, restored, 1.0),
        "PSNR head": _head_psnr(case, image),
        "SSIM": ssim(clean, restored, 1.0),
        "bias": 100 * bias(clean, restored, clean > HEAD),
        "gradient": gradient_ratio(clean, restored),
    }


def noisy_stacks(path: Path) -> list[Case]:
    """Rician versions ``(DEPTH + 2 REACH, H, W)`` of the slices around the middle of a volume, at every level."""
    from monai_sasm.degradations.kspace import KspaceNoise

    slices, sides = stack_across(*scaled_volume(path))
    name, facts = path.name.split(".")[0], {"affine": stack_affine(sides)}
    first = len(slices) // 2 - DEPTH // 2 - REACH
    clean = np.ascontiguousarray(slices[first : first + DEPTH + 2 * REACH], np.float32)
    return [
        Case(
            name,
            _stacks(level),
            clean=clean,
            degraded=degrade(KspaceNoise(sigma=(level, level)), clean[:, None], seed=seed_of(name, percent(level)))[0][
                :, 0
            ],
            sigma=level,
            facts=facts,
        )
        for level in LEVELS
    ]


def _inner(stack: Image) -> Image:
    """The slices that are measured; a single slice is."""
    return stack if len(stack) == 1 else stack[REACH:-REACH]


def _unbiased(method: Method) -> Method:
    """The peer, then ``sqrt(max(y^2 - pi/2 sigma^2, 0))``, which maps the mean of pure Rician noise to 0."""

    def restore(case: Case) -> Image:
        squared = method.restore(case).clip(0) ** 2 - _correction(case) * case.sigma**2
        return np.sqrt(np.maximum(squared, 0)).astype(np.float32)

    return replace(
        method,
        name=f"{method.name}, Rician-corrected",
        restore=restore,
        settings=f"{method.settings} rician {RICIAN_MEAN}",
        note=method.note + "; then the mean of Rician noise removed (seconds: of the correction alone)",
    )


def _correction(case: Case) -> Image:
    """Noise power to subtract, in sigma^2: pi/2 where there is only noise, 1 where the signal is strong (Gudbjartsson
    1995).
    """
    from scipy.ndimage import gaussian_filter

    ratio = gaussian_filter(case.degraded, (0, 2, 2)) / max(case.sigma, 1e-9)
    return (1 + (RICIAN_MEAN - 1) * np.clip((3 - ratio) / (3 - RICIAN_MEAN**0.5), 0, 1)).astype(np.float32)


def _head_psnr(case: Case, image: Image) -> float:
    return head_psnr(replace(case, clean=_inner(case.clean)), _inner(image))


def _stacks(level: float) -> str:
    return f"stacks, {percent(level)}"
