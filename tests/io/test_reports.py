"""Inputs made after public bug reports: each is read rightly, or refused with its reason."""

from __future__ import annotations

from collections import Counter

import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.formats import inventory
from monai_sasm.types import Modality
from tests.data import shared

READ = "read"
DICOM = {  # folder -> what becomes of each of its entries
    "c01_slice_slopes": [READ],
    "c02_negative_slope": [READ],
    "c03_padding_signed_implicit": [READ],
    "c03b_padding_undeclared": [READ],
    "c03c_padding_inside": [READ],
    "c04_overlay_bits": [READ],
    "c11_charsets": [READ, READ],
    "c12_metal_16bit": [READ],
    "c14_imager_spacing": ["Pixel Spacing"],
    "c15_duplicate_slice": [READ, "a duplicate slice"],
    "c16_missing_slice": [READ],
    "e01_mixed_phase": [READ, "phase"],
    "e02_all_phase": ["phase"],
    "m01_fa_adc_processed": ["a parameter map"],
    "m03_phase_comment": ["phase"],
    "m05_ge_phase_private": ["phase"],
    "m06_mosaic": ["mosaic", "mosaic"],
    "m07_multi_echo": [READ, READ, READ],
    "m08_dwi_private": [READ],
}
NIFTI = {
    "nifti_ct/plain": READ,
    "nifti_ct/pad2000": READ,
    "nifti_ct/pad3024": READ,
    "nifti_ct/metal20000": READ,
    "nifti_ct/unit01": "Hounsfield",
    "nifti_ct/mu_per_mm": "Hounsfield",
    "nifti_ct/plus1024": "Hounsfield",
    "nifti_mr/brain_mask_like": "label map",
    "nifti_mr/sub-1_part-phase_bold": "phase",
    "nifti_mr/zscore": "negative",
    **{
        f"nifti_mr/{name}": READ
        for name in ("skullstripped", "norm01", "uint8", "permuted", "shear", "slice2d", "dwi_4d")
    },
}


def outcomes(path: str, modality: Modality | None = None) -> list[str]:
    found = []
    for entry in inventory(shared(f"reports/{path}"), modality):
        try:
            entry.load()
            found.append(READ)
        except RefusedError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("case", DICOM)
def test_series_of_reports(case: str) -> None:
    found, wanted = outcomes(case), DICOM[case]
    told = Counter(next((word for word in wanted if word in one), one) for one in found)
    assert told == Counter(wanted)


@pytest.mark.parametrize("case", NIFTI)
def test_volumes_of_reports(case: str) -> None:
    (found,) = outcomes(f"{case}.nii.gz", Modality.CT if "_ct/" in case else Modality.MR)
    assert NIFTI[case] in found
