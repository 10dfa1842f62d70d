"""Facts about scanner and protocol in a DICOM header, for :class:`monai_sasm.io.acquisition.Acquisition`."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from monai_sasm.io.acquisition import Acquisition
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
_QUOTABLE = re.compile(r"[\w .+/^-]{1,64}", re.ASCII)


def read_acquisition(path: Path) -> Acquisition:
    """What one file says; multi-frame files say it of their first frame."""
    tags = [*_NUMBERS.values(), *_WORDS.values(), "Manufacturer", "ManufacturerModelName", *_PER_FRAME]
    with quiet():
        header = dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)
        parts = [header, *_groups(header)]
        facts: dict[str, Any] = {name: _first(parts, keyword) for name, keyword in _WORDS.items()}
        makers = (_quotable(header, keyword) for keyword in ("Manufacturer", "ManufacturerModelName"))
        scanner = " ".join(filter(None, makers))
        facts |= {name: _number(parts, keyword) for name, keyword in _NUMBERS.items()}
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
    """The first value of an attribute; nothing where damage may have put something else there."""
    text = text_of(part, keyword).split("\\")[0].strip()
    return text if _QUOTABLE.fullmatch(text) else ""


def _number(parts: list[Dataset], keyword: str) -> float | None:
    values = (number_of(part, keyword, None) for part in parts)
    return next((value for value in values if value is not None and isfinite(value)), None)
