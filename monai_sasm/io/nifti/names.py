"""Names of NIfTI files, and what they tell: BIDS entities, and what tools and data sets call label maps."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from monai_sasm.errors import RefusedError
from monai_sasm.io.meaning import LABELS
from monai_sasm.types import Modality

SUFFIXES = (".nii.gz", ".nii")
PAIR_SUFFIXES = (".hdr", ".hdr.gz")
"""Of headers whose voxels lie in ``.img`` or ``.img.gz`` beside them."""
_VOLUMES = (*SUFFIXES, ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh")  # whose sidecar is named alike
_LARGEST_JSON = 1 << 22  # bytes
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
        r"|^(adc|fa|md|cb[fv])$|_uni([_-](den|images))*$"
    ),
    "a map that lay beside a result": r"_(weight-[\w-]+|trust|uncertainty|change)$",  # as --save-maps names them
}

_OTHERS = re.compile(r"_(pet|meg|eeg|ieeg|nirs|spect|us)$", re.IGNORECASE)  # BIDS, and what people write


def is_nifti_name(path: Path) -> bool:
    """Whether a file name ends like that of a NIfTI file."""
    return path.name.lower().endswith((*SUFFIXES, *PAIR_SUFFIXES))


def sidecar_of(path: Path) -> Path:
    """The JSON file beside a volume, which says what was done to it."""
    return path.with_name(f"{stem(path)}.json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """What the JSON file beside a volume holds; nothing where it is none."""
    return read_object(sidecar_of(path))


def read_object(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds; nothing where it holds none, is a link, or is too large for such a file."""
    try:
        if not file.is_file() or file.is_symlink() or file.stat().st_size > _LARGEST_JSON:
            return {}
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def is_result(path: Path) -> bool:
    """Whether a volume is a result of this program's networks, by its sidecar.

    A source beside its own result of another format (``ct.nrrd``, ``ct.nii.gz``) shares the sidecar and is none.
    """
    told = read_sidecar(path)
    makers = told.get("GeneratedBy")
    names = [one.get("Name") for one in makers if isinstance(one, dict)] if isinstance(makers, list) else []
    if "monai_sasm" not in names or not told.get("Models"):
        return False
    others = (path.with_name(stem(path) + end) for end in _VOLUMES if not path.name.lower().endswith(end))
    sources = told.get("Sources")
    return not (isinstance(sources, list) and path.name in sources and any(other.exists() for other in others))


def voxels_of(path: Path) -> Path:
    """The file that holds the voxels: of a pair the other one, else the file itself."""
    if not path.name.lower().endswith(PAIR_SUFFIXES):
        return path
    begin, packed = stem(path), ".gz" if path.name.lower().endswith(".gz") else ""
    image = ".IMG" if ".HDR" in path.name else ".img"
    return path.with_name(f"{begin}{image}{packed}")


def paired(path: Path) -> Path:
    """The file with the voxels of a header that says that it is one of two.

    Raises:
        RefusedError: its name does not say which the other is.
    """
    if voxels_of(path) == path:
        raise RefusedError("the header of a pair must be named .hdr, and its voxels .img: rename both")
    return voxels_of(path)


def check_in_space(modality: Modality | None, path: Path) -> None:
    """Refuse to write a photo under the name of a volume.

    Raises:
        ValueError: it is one.
    """
    if modality is not None and modality.profile.is_picture:
        raise ValueError(f"a photo has no place in space, got {path.name}; choose the suffix of its own kind, or .png")


def result_name(path: Path) -> str:
    """Name of the result of a NIfTI file: its own, with the suffix it may lack."""
    return path.name if is_nifti_name(path) else f"{path.name}{SUFFIXES[0]}"


def meaning(path: Path) -> str | None:
    """What its name or folder says that it is instead of an image: labels, phase, a parameter map; else ``None``."""
    name = stem(path)
    if _LABELS.search(name) or _LABEL_FOLDERS.fullmatch(path.parent.name):
        return LABELS
    return next((what for what, ends in _MEANINGS.items() if re.search(ends, name, re.IGNORECASE)), None)


def said_modality(path: Path) -> Modality | None:
    """What made an image, by a BIDS suffix such as ``_T1w`` or ``_ct``, or by ``Modality`` in the sidecar, as dcm2niix
    writes it; ``None`` where neither says it.

    Raises:
        RefusedError: it is of another kind, such as PET.
    """
    known = [(modality, modality.profile.bids_suffixes) for modality in Modality.known()]
    name = stem(path)
    for modality, ends in known:
        if ends and re.search(f"_(?:{ends})$", name, re.IGNORECASE):
            return modality
    other = _OTHERS.search(name)
    if other:
        raise RefusedError(f"its name says that it is {other[1].upper()}, for which there is no expert")
    told = read_sidecar(path).get("Modality")
    if not isinstance(told, str) or not told:
        return None
    for modality, _ in known:
        if told.upper() == modality.value and not modality.profile.is_picture:
            return modality
    raise RefusedError(f"its sidecar says that its modality is {told[:16]!r}, for which there is no expert")


def stem(path: Path) -> str:
    """File name without ``.nii`` or ``.nii.gz``, or without its last suffix."""
    return re.sub(r"\.(nii|hdr|img|dcm)(\.gz)?$|\.[^.]*$", "", path.name, flags=re.IGNORECASE)
