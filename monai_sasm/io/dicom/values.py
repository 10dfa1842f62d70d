"""Attribute values of possibly damaged DICOM data sets as plain Python values; the unreadable counts as absent.

pydicom converts a value when it is first asked for, and would warn and quote it: see
:func:`monai_sasm.io.silence.quiet`.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any, overload

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from monai_sasm.io.meaning import LONGEST_TEXT
from monai_sasm.io.silence import quiet

LARGEST_LENGTH = 1e7
"""mm; a coordinate beyond it is damage."""


_TERMS = (  # of Modality (PS3.3 C.7.3.1.1.1), Photometric Interpretation and Rescale Type
    "AR|ASMT|AU|BDUS|BI|BMD|CR|CT|CTPROTOCOL|DG|DOC|DX|ECG|EPS|ES|FID|GM|HC|HD|IO|IOL|IVOCT|IVUS|KER|KO|LEN|LS|MG|MR|NM"
    "|OAM|OCT|OP|OPM|OPT|OPTBSV|OPTENF|OPV|OSS|OT|PLAN|PR|PT|PX|REG|RESP|RF|RG|RTDOSE|RTIMAGE|RTPLAN|RTRECORD|RTSTRUCT"
    "|RWV|SEG|SM|SMR|SR|SRF|STAIN|TEXTUREMAP|TG|US|VA|XA|XAPROTOCOL|XC"
    "|MONOCHROME[12]|PALETTE COLOR|RGB|YBR_(FULL(_422)?|PARTIAL_42[02]|ICT|RCT)|HSV|ARGB|CMYK|XYB"
    "|OD|HU|MGML|Z_EFF|ED|EDW|HU_MOD|PCT"
)


def quotable(text: str) -> str:
    """A defined term as it may stand in a message; anything else may be patient data that damage has put there."""
    return text if re.fullmatch(_TERMS, text) else "(no defined term)"


def uid_of(text: str) -> UID:
    """A UID that may be none: pydicom's own warning would quote it."""
    with quiet():
        return UID(text)


def text_of(dataset: Dataset, keyword: str) -> str:
    """The value as text, parts of a multi-valued attribute joined by a backslash; ``""`` when absent.

    Cut after :data:`~monai_sasm.io.meaning.LONGEST_TEXT` characters: no value that DICOM allows here is longer.
    """
    return _whole_text(dataset, keyword)[:LONGEST_TEXT]


def _whole_text(dataset: Dataset, keyword: str) -> str:
    value = _value(dataset, keyword)
    if value is None:
        return ""
    if isinstance(value, (str, bytes, int, float)):
        return str(value).strip(" \0")
    try:
        return "\\".join(str(part).strip(" \0") for part in value)
    except TypeError:
        return str(value)


def identity_of(dataset: Dataset, keyword: str) -> str:
    """Like :func:`text_of`, but what differs stays distinct: whole, and what no character set explains as Latin-1."""
    raw = dataset.get_item(keyword) if keyword in dataset else None
    text = _whole_text(dataset, keyword)
    if "\ufffd" not in text or not isinstance(raw, RawDataElement) or raw.value is None:
        return text
    return raw.value.decode("latin-1").strip(" \0")


@overload
def number_of(dataset: Dataset, keyword: str, default: float) -> float: ...
@overload
def number_of(dataset: Dataset, keyword: str, default: None) -> float | None: ...
def number_of(dataset: Dataset, keyword: str, default: float | None) -> float | None:
    """The value as a float, NaN and infinity included; ``default`` when absent or no number."""
    value = _value(dataset, keyword)
    try:
        return default if value is None else float(value)
    except (TypeError, ValueError):
        return default


def step_of(dataset: Dataset) -> float | None:
    """Distance of slices in mm: Spacing Between Slices, else Slice Thickness; ``None`` where neither is a length."""
    found = (number_of(dataset, keyword, None) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
    return next((number for number in found if number is not None and 0 < number < LARGEST_LENGTH), None)


def scale_of(dataset: Dataset, keyword: str, default: float) -> float:
    """A number that pixel values are scaled by: NaN where something stands there that is none, which nobody guesses."""
    return number_of(dataset, keyword, float("nan") if text_of(dataset, keyword) else default)


@overload
def integer_of(dataset: Dataset, keyword: str, default: int) -> int: ...
@overload
def integer_of(dataset: Dataset, keyword: str, default: None) -> int | None: ...
def integer_of(dataset: Dataset, keyword: str, default: int | None) -> int | None:
    """The value as an integer; ``default`` when absent or no finite number."""
    value = number_of(dataset, keyword, None)
    return default if value is None or not isfinite(value) else int(value)


def floats_of(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` lengths or direction cosines; ``None`` when absent, too few, too many or absurd."""
    try:
        numbers = tuple(float(part) for part in _value(dataset, keyword))
    except (TypeError, ValueError):
        return None
    plausible = all(abs(number) < LARGEST_LENGTH for number in numbers)
    return numbers if len(numbers) == count and plausible else None


def _value(dataset: Dataset, keyword: str) -> Any:
    try:
        tag = tag_for_keyword(keyword)
        if tag is None or tag not in dataset:
            return None
        with quiet():
            return dataset[tag].value
    except Exception:  # the bytes of the attribute do not fit its VR
        return None


def units_of(dataset: Dataset) -> tuple[str, ...]:
    """Units that stored values are mapped to, of a data set or a functional group."""
    items = dataset.get("RealWorldValueMappingSequence") or []
    codes = (code for item in items for code in item.get("MeasurementUnitsCodeSequence") or [])
    return tuple(text_of(code, "CodeValue") for code in codes)
