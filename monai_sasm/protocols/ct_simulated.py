"""``ct-simulated``: noise of lower doses, simulated in the sinogram of full-dose slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.ct_denoising import BODY, CtStudy, ct_case, ct_table
from monai_sasm.evaluation.data import CtPair, ct_pairs
from monai_sasm.evaluation.scoring import Case, degrade
from monai_sasm.evaluation.table import Table

PROTOCOL = "ct-simulated"
DOSES = {"dose 1/2": 0.5, "dose 1/4": 0.25, "dose 1/10": 0.1}
BM3D_SLICES = 4  # per dose
TUNING = "L143_D45f_i106"  # peers are tuned here


def run(context: Context) -> Table:
    """Doses 1/2, 1/4 and 1/10 from the full-dose slices of L096."""
    root = context.data / "ct_ldct_pairs"
    pairs = list(ct_pairs(root / "L096_dicom", limit=context.limit))
    study = CtStudy(
        PROTOCOL,
        simulated_cases(pairs),
        tuning=simulated_cases(list(ct_pairs(root / "L143_nifti", names=(TUNING,)))),
        used=[pair.paths[0] for pair in pairs],
        flags=(
            "noise: monai_sasm.degradations.low_dose_ct.LowDoseCt, sharp kernel, seed = number of the slice; the "
            "reference is the full-dose slice with its own noise",
            "peers are told the simulation's own noise level (median over the body); expert and default pipeline "
            "estimate it",
            f"BM3D runs on the first {BM3D_SLICES} slices of each dose",
        ),
        bm3d=BM3D_SLICES,
    )
    return ct_table(context, study)


def simulated_cases(pairs: Sequence[CtPair]) -> list[Case]:
    """The full-dose slices at each of :data:`DOSES`."""
    import torch

    from monai_sasm.degradations.low_dose_ct import LowDoseCt

    cases = []
    for level, dose in DOSES.items():
        for number, pair in enumerate(pairs):
            model = LowDoseCt(spacing=pair.spacing, dose=(dose, dose), kernel="sharp")
            noisy, params = degrade(model, pair.full[None], seed=number)
            noise = model.sigma(torch.from_numpy(pair.full)[None], params)[0].numpy()
            sigma = float(np.median(noise[pair.full > BODY]))
            cases.append(
                ct_case(pair.name, level, full=pair.full, degraded=noisy[0], spacing=pair.spacing, sigma=sigma)
            )
    return cases
