"""Names of NIfTI files, and what they tell: BIDS entities, and what tools and data sets call label maps."""

from __future__ import annotations

import re
from pathlib import Path

from monai_sasm.io.meaning import LABELS
from monai_sasm.types import Modality

SUFFIXES = (".nii.gz", ".nii")
_LABELS = re.compile(
    r"(^|[_.-])(d?seg|probseg|mask|labels?|segmentations?|parcellation|aseg|aparc[\w.+-]*|wmparc|ribbon)$",
    re.IGNORECASE,
)
_LABEL_FOLDERS = re.compile(r"labels(Tr|Ts|Val)?|masks?|gt_?segmentations?|segmentations?", re.IGNORECASE)
_MEANINGS = {  # what it is -> BIDS entities and suffixes, and the suffixes of dcm2niix
    "phase": r"_part-phase(_|$)|_(phase[12]?|phasediff|ph)$",
    "the real part of a complex image": r"_part-real(_|$)|_real$",
    "the imaginary part of a complex image": r"_part-imag(_|$)|_imaginary$",
    "a parameter map": (
        r"_(adc|fa|md|rd|cb[fv]|mtt|ttp|tmax|fieldmap|unit1|mtsat|mtr|\w*map|stat-\w+|defacemask)$"
        r"|^(adc|fa|md|cb[fv])$"
    ),
}


def is_nifti_name(path: Path) -> bool:
    """Whether a file name ends like that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def result_name(path: Path) -> str:
    """Name of the result of a NIfTI file: its own, with the suffix it may lack."""
    return path.name if is_nifti_name(path) else f"{path.name}{SUFFIXES[0]}"


def meaning(path: Path) -> str | None:
    """What its name or folder says that it is instead of an image: labels, phase, a parameter map; else ``None``."""
    name = stem(path)
    if _LABELS.search(name) or _LABEL_FOLDERS.fullmatch(path.parent.name):
        return LABELS
    return next((what for what, ends in _MEANINGS.items() if re.search(ends, name, re.IGNORECASE)), None)


def bids_modality(path: Path) -> Modality | None:
    """What made an image, by a BIDS suffix such as ``_T1w`` or ``_ct``; ``None`` without one."""
    known = ((modality, modality.profile.bids_suffixes) for modality in Modality.known())
    fits = (one for one, ends in known if ends and re.search(f"_(?:{ends})$", stem(path), re.IGNORECASE))
    return next(fits, None)


def stem(path: Path) -> str:
    """File name without ``.nii`` or ``.nii.gz``, or without its last suffix."""
    return re.sub(r"\.nii(\.gz)?$|\.[^.]*$", "", path.name, flags=re.IGNORECASE)
