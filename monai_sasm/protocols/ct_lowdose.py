"""``ct-lowdose``: quarter dose against full dose, real pairs of slices (Mayo)."""

from __future__ import annotations

from monai_sasm.evaluation.contenders import contenders
from monai_sasm.evaluation.context import Context
from monai_sasm.evaluation.ct_denoising import BODY, FAMILY, RIVALS, CtStudy, ct_case, ct_table
from monai_sasm.evaluation.data import CtPair, ct_pairs
from monai_sasm.evaluation.scoring import Case
from monai_sasm.evaluation.table import Table

PROTOCOL = "ct-lowdose"
VALIDATION = ("L192_B30f_i078", "L192_B30f_i142", "L192_D45f_i076")  # held out of training
TUNING = {"B30f": "L143_B30f_i115", "D45f": "L143_D45f_i106"}  # peers are tuned here


def run(context: Context) -> Table:
    """Ten slices of the test patient L096, and the validation slices of L192 per kernel."""
    root = context.data / "ct_ldct_pairs"
    test = list(ct_pairs(root / "L096_dicom", limit=context.limit))
    validation = list(ct_pairs(root / "L192_nifti", names=VALIDATION))
    cases = [pair_case("L096 D45f (test)", pair) for pair in test]
    cases += [pair_case(f"L192 {pair.kernel} (validation)", pair) for pair in validation]
    tuning = {pair.kernel: pair for pair in ct_pairs(root / "L143_nifti", names=tuple(TUNING.values()))}
    levels = {case.level: pair.kernel for case, pair in zip(cases, [*test, *validation], strict=True)}
    rivals, missing = contenders(context, FAMILY, RIVALS)
    study = CtStudy(
        PROTOCOL,
        cases,
        tuning=[pair_case(level, tuning[kernel]) for level, kernel in levels.items()],
        used=[path for pair in (*test, *validation) for path in pair.paths],
        flags=(
            "peers are told the standard deviation of (quarter - full dose) inside the body; expert and default "
            "pipeline estimate the noise themselves",
            "L143 and the other slices of L192 are training data; L096 was not trained on, but looked at "
            "while weights were chosen",
            "a RED-CNN trained by others on far more of this data gives 24.48 dB, bias 3.9 HU on the L096 slices "
            "(measured once, not in this run); published RED-CNN on L506 (other patient): input 29.25, result 32.7 to "
            "32.9 dB",
            *missing,
        ),
        contenders=rivals,
    )
    return ct_table(context, study)


def pair_case(level: str, pair: CtPair) -> Case:
    """A real pair; the noise level is that of the difference inside the body."""
    sigma = float((pair.quarter - pair.full)[pair.full > BODY].std())
    return ct_case(pair.name, level, full=pair.full, degraded=pair.quarter, spacing=pair.spacing, sigma=sigma)
