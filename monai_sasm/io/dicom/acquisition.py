"""Facts about scanner and protocol in a DICOM header, for :class:`monai_sasm.io.acquisition.Acquisition`."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from monai_sasm.io.acquisition import Acquisition
from monai_sasm.io.dicom.header import quiet_read
from monai_sasm.io.dicom.values import number_of, text_of
from monai_sasm.io.silence import quiet

_NUMBERS = {
    "thickness": "SliceThickness",
    "kilovolts": "KVP",
    "exposure": "Exposure",
    "dose": "CTDIvol",
    "tesla": "MagneticFieldStrength",
    "echo": "EchoTime",
    "repetition": "RepetitionTime",
}
_WORDS = {"kernel": "ConvolutionKernel", "body_part": "BodyPartExamined"}
_PER_FRAME = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")  # of multi-frame files
_KERNEL = (  # words of which the makers of scanners put names together: STD+, HD LUNG, B_VSHARP_C
    "STANDARD|STANDARDPLUS|STD|STND|SOFT|SOFTPLUS|SMOOTH|MEDIUM|V?SHARP|HD|BONE|BONEPLUS|LUNG|DETAIL|EDGE|CHEST|CHST"
    "|ULTRA|HEAD|BODY|BRAIN|NEURO|CARDIAC|TISSUE|ROUTINE|PLUS"
)
_QUOTABLE = {  # what damage may have put there is patient data, too: only usual names are told
    "Manufacturer": r"[A-Za-z][\w .,+/-]{0,63}",
    "ManufacturerModelName": r"[A-Za-z][\w .,+/-]{0,63}",
    "ConvolutionKernel": rf"(?:[A-Z][A-Za-z]{{0,2}}\d{{1,3}}[a-z]{{0,2}}(?:-[A-Z]{{1,2}})?|[A-Z]{{1,2}}|\d{{1,2}}"
    rf"|(?:[A-Z]_)?(?i:{_KERNEL})(?:[ _+-](?:(?i:{_KERNEL})|[A-Z]|\d))*)\+{{0,2}}",
    "BodyPartExamined": "ABDOMEN|ABDOMENPELVIS|ANKLE|AORTA|ARM|BLADDER|BRAIN|BREAST|CAROTID|CHEST|CHESTABDOMEN"
    "|CHESTABDPELVIS|CLAVICLE|COLON|CSPINE|EAR|ELBOW|EXTREMITY|EYE|FACE|FEMUR|FINGER|FOOT|HAND|HEAD|HEADNECK|HEART|HIP"
    "|HUMERUS|IAC|JAW|KIDNEY|KNEE|LEG|LIVER|LSPINE|LUNG|MEDIASTINUM|NECK|NECKCHEST|ORBIT|PANCREAS|PELVIS|PROSTATE|RIB"
    "|SACRUM|SHOULDER|SINUS|SKULL|SPINE|SPLEEN|STERNUM|THIGH|THORAX|THYROID|TSPINE|UTERUS|WHOLEBODY|WRIST",
}
OTHER = "of an unusual name, which the header has"
"""Stands for a kernel or a body part that has none of the usual names."""


def read_acquisition(path: Path) -> Acquisition:
    """What one file says; multi-frame files say it of their first frame, and files that cannot be parsed nothing."""
    tags = [*_NUMBERS.values(), *_WORDS.values(), "Manufacturer", "ManufacturerModelName", *_PER_FRAME]
    try:
        header = quiet_read(path, force=True, stop_before_pixels=True, specific_tags=tags)
        with quiet():
            parts = [header, *_groups(header)]
            facts: dict[str, Any] = {name: _first(parts, keyword) for name, keyword in _WORDS.items()}
            makers = (_quotable(header, keyword) for keyword in ("Manufacturer", "ManufacturerModelName"))
            scanner = " ".join(one for one in makers if one not in ("", OTHER))
            facts |= {name: _number(parts, keyword) for name, keyword in _NUMBERS.items()}
    except Exception:  # damaged sequences raise whatever they provoke
        return Acquisition()
    return Acquisition(scanner=scanner, **facts)


def _groups(header: Dataset) -> list[Dataset]:
    """The data sets one and two levels below the functional groups of the first frame."""
    found = []
    for name in _PER_FRAME:
        for group in list(header.get(name) or [])[:1]:
            found += [one for element in group if element.VR == "SQ" for one in list(element.value)[:1]]
    return found


def _first(parts: list[Dataset], keyword: str) -> str:
    return next(filter(None, (_quotable(part, keyword) for part in parts)), "")


def _quotable(part: Dataset, keyword: str) -> str:
    """The first value of an attribute, or :data:`OTHER`; ``""`` where it is absent."""
    text = text_of(part, keyword).split("\\")[0].strip()
    return text if not text or re.fullmatch(_QUOTABLE[keyword], text) else OTHER


def _number(parts: list[Dataset], keyword: str) -> float | None:
    values = (number_of(part, keyword, None) for part in parts)
    return next((value for value in values if value is not None and isfinite(value)), None)
