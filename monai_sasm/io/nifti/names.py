"""Names of NIfTI files, and what BIDS names tell."""

from __future__ import annotations

import re
from pathlib import Path

from monai_sasm.types import Modality

SUFFIXES = (".nii.gz", ".nii")
_BIDS_LABELS = re.compile(r"_(dseg|probseg|mask)$", re.IGNORECASE)


def is_nifti_name(path: Path) -> bool:
    """Whether a file name ends like that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def result_name(path: Path) -> str:
    """Name of the result of a NIfTI file: its own, with the suffix it may lack."""
    return path.name if is_nifti_name(path) else f"{path.name}{SUFFIXES[0]}"


def is_bids_label(path: Path) -> bool:
    """Whether a BIDS suffix says that it is a segmentation or mask."""
    return _BIDS_LABELS.search(stem(path)) is not None


def bids_modality(path: Path) -> Modality | None:
    """What made an image, by a BIDS suffix such as ``_T1w`` or ``_ct``; ``None`` without one."""
    known = ((modality, modality.profile.bids_suffixes) for modality in Modality.known())
    fits = (one for one, ends in known if ends and re.search(f"_(?:{ends})$", stem(path), re.IGNORECASE))
    return next(fits, None)


def stem(path: Path) -> str:
    """File name without ``.nii`` or ``.nii.gz``, or without its last suffix."""
    return re.sub(r"\.nii(\.gz)?$|\.[^.]*$", "", path.name, flags=re.IGNORECASE)
