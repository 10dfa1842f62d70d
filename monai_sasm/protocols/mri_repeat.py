"""``mri-repeat``: the scanner's own noise. Heads were scanned twice: one scan is restored and compared with the other.

The second scan has noise of its own, which no restoration of the first can know. So with ``x`` and ``y`` the two scans
and ``r`` the restored ``x``, ``mean((x - y)^2) - mean((r - y)^2)`` is the noise variance that was taken away less the
damage done to the anatomy, whatever the noise of ``y`` (as in Noise2Noise, Lehtinen et al. 2018). What differs between
the two days, and the error of the registration, is in both terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from monai_sasm.datasets.registration import registered
from monai_sasm.evaluation import peers
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.data import DataAbsentError, data_hash, load
from monai_sasm.evaluation.metrics import gradient_ratio, psnr
from monai_sasm.evaluation.mri_noise import SLICES, STEP, central_indices
from monai_sasm.evaluation.restoring import our_methods
from monai_sasm.evaluation.scoring import Case, Gain, Image, Method, score
from monai_sasm.evaluation.table import Table
from monai_sasm.protocols.mri_noise import EXPERT
from monai_sasm.types import Modality

PROTOCOL = "mri-repeat"
FOLDER = "mri_repeat"
PATTERN = "study*_FLAIR.nii.gz"
TRAINED_ON = ("patient01", "patient03")  # of open_ms_data, see bundles/noise_mri_unet/docs/README.md
LEVEL = "FLAIR"
WIDTHS = (0.5, 0.7, 1.0)  # pixels
PEERS = ("BM3D", "NLM fast")
STRENGTHS = {"BM3D": (0.5, 0.7, 1.0, 1.4), "NLM fast": (0.4, 0.6, 0.8, 1.0, 1.3)}
GAIN = Gain("PSNR")
DEFINITIONS = {
    "PSNR": "dB, against the other scan, in tissue, range 1 = white; mean over slices",
    "noise removed": "standard deviation, % of white: root of the variance that went, less the damage; negative where "
    "more was damaged",
    "gradient": "mean gradient magnitude over that of the scan as it came",
    **GAIN.definition,
}


def run(context: Context) -> Table:
    """FLAIR of patients who were scanned twice, each scan restored and compared with the other one.

    Patients whose repeated scans were trained on are left out.
    """
    found = {path.parent for path in (context.data / FOLDER).glob(f"*/{PATTERN}")}
    folders = sorted(folder for folder in found if folder.name not in TRAINED_ON)[: context.limit]
    pairs = [tuple(sorted(folder.glob(PATTERN))) for folder in folders]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise DataAbsentError(context.data / FOLDER / "PATIENT" / PATTERN)
    cases = [case for one, other in pairs for pair in ((one, other), (other, one)) for case in cases_of(*pair)]
    methods = [Method("input", lambda case: case.degraded)]
    if context.peers:
        methods += [Method(f"Gaussian {width:g} pixels", _blurring(width)) for width in WIDTHS]
        methods += peers.methods(PEERS, cases[:1], context.cache, strengths=STRENGTHS, quality=_psnr, first=None)
    methods += our_methods(context.restorer, Modality.MR, EXPERT, sigma_known=True)
    return Table(
        PROTOCOL,
        data_hash=data_hash([path for pair in pairs for path in pair]),
        definitions=DEFINITIONS,
        rows=tuple(score(PROTOCOL, cases, methods, measure=measure, cache=context.cache, gain=GAIN)),
        flags=(
            *context.limited(),
            f"{SLICES} slices around the middle of each scan, {STEP} apart; only the other scan is resampled",
            _difference(cases),
            "T1 and T2 of the same patients were trained on; their FLAIR, with its noise for clean, in earlier rounds "
            "of training, from whose weights the last one started",
            "peers and 'sigma given' are told the noise of uniform tissue; peers are tuned on the first slice against "
            "the other scan",
        ),
    )


def cases_of(scan: Path, other: Path) -> list[Case]:
    """Slices ``(1, H, W)`` around the middle of a scan, of a white of 1; ``clean`` is the other scan."""
    from monai_sasm.functional.intensity import scaling_for
    from monai_sasm.functional.noise import NoiseEstimator
    from monai_sasm.functional.uniform_tissue import uniform_noise

    first, second, tissue = registered(scan, other)
    white = scaling_for(load(scan, Modality.MR)).scale
    chosen = central_indices(len(first))
    noise = uniform_noise(first[chosen][:, None] / white, Modality.MR.profile, NoiseEstimator())
    return [
        Case(
            f"{scan.parent.name}_{scan.name.split('.')[0]}_{index}",
            LEVEL,
            clean=second[index][None] / white,
            degraded=first[index][None] / white,
            sigma=0.0 if noise is None else noise.deviation,
            facts={"tissue": tissue[index][None], "white": white},
            patient=scan.parent.name,
        )
        for index in chosen
        if tissue[index].any()
    ]


def _difference(cases: Sequence[Case]) -> str:
    """How much of what the scans differ by is noise, in words."""
    whole = 100 * math.sqrt(np.mean([_error(case, case.degraded) for case in cases]))
    noise = 100 * math.sqrt(2 * np.mean([case.sigma**2 for case in cases]))
    return (
        f"in tissue the scans differ by {whole:.1f} % of white (root mean square), of which the noise of both, as "
        f"uniform tissue shows it, makes {noise:.1f} %; the rest is position and change, of which a method that blurs "
        "takes away, too: 'gradient' says at what price"
    )


def measure(case: Case, image: Image) -> dict[str, float]:
    """All metrics of :data:`DEFINITIONS` of one slice."""
    less = _error(case, case.degraded) - _error(case, image)
    return {
        "PSNR": _psnr(case, image),
        "noise removed": 100 * math.copysign(math.sqrt(abs(less)), less),
        "gradient": gradient_ratio(case.degraded, image),
    }


def _error(case: Case, image: Image) -> float:
    tissue = case.facts["tissue"]
    return float(np.mean((image[tissue].astype(np.float64) - case.clean[tissue]) ** 2))


def _psnr(case: Case, image: Image) -> float:
    tissue = case.facts["tissue"]
    return psnr(case.clean[tissue], image[tissue], 1.0)


def _blurring(width: float) -> Callable[[Case], Image]:
    def blur(case: Case) -> Image:
        blurred: Image = gaussian_filter(case.degraded, (0, width, width))
        return blurred

    return blur
