"""What a source left out or wrote wrongly, mended where that invents nothing, so that archives take the derived copy.

Type 2 attributes that are missing are added empty, which says "not known" (PS3.5 7.4). A value that its representation
does not allow (PS3.5 6.2) is rewritten where it can be read in one way only, else emptied or dropped.

What other systems know patient and study by stays as it came, valid or not, so that the copy lies beside its source:
all UIDs, for one that is made up leads nowhere, and the identifiers and dates of :data:`KEPT`. Only dates that can be
read are rewritten, and those that say nothing (``00000000``) emptied, as is a sex that is none of DICOM's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds, validate_value

from monai_sasm.io.dicom.values import text_of
from monai_sasm.types import DicomProfile, Modality

NOT_TOLD = "not told by the source"

_TYPE_2 = (  # PS3.3 C.7.1.1, C.7.2.1, C.7.3.1, C.7.4.1, C.7.5.1, C.7.6.1, C.7.6.2
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    "SeriesNumber",
    *("PatientPosition", "PositionReferenceIndicator", "Manufacturer", "InstanceNumber", "SliceThickness"),
)
_NEVER_EMPTY = (  # required with a value under a condition, PS3.3 C.7.6.3, C.11.2: worth nothing without one
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"),
    *("SpecificCharacterSet", "RescaleType"),
)
_LATERALITY = ("Laterality", "ImageLaterality", "FrameLaterality", "MeasurementLaterality")
_UNPAIRED = """
    ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CHEST CHESTABDOMEN CHESTABDPELVIS COCCYX COLON CSPINE
    CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART ILEUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE
    MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX
    PROSTATE RECTUM SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA TSPINE URETHRA
    UTERUS VAGINA WHOLEBODY
    """
"""Body parts of PS3.16 annex L of which there is one: an empty laterality is not to be sent with them."""
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"}
_CHECKED = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM"}
KEPT = {
    *("PatientID", "OtherPatientIDs", "IssuerOfPatientID", "PatientBirthDate"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "AdmissionID"),
    *("RequestedProcedureID", "ScheduledProcedureStepID", "PerformedProcedureStepID"),
    *("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"),
}
"""Attributes that patient, study and order are known by."""
_CHARACTER_SET = re.compile(r"ISO.(IR|2022.IR).(\d+)", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"(\d{4})([-./])(\d{1,2})\2(\d{1,2})([T ].*)?")
_YEAR_LAST = re.compile(r"(\d{1,2})([-./])(\d{1,2})\2(\d{4})")


def dicom_profile(modality: Modality) -> DicomProfile:
    """How DICOM holds images of a modality.

    Raises:
        ValueError: it does not.
    """
    dicom = modality.profile.dicom
    if dicom is None:
        raise ValueError(f"{modality.profile.images} are not written as DICOM; write NIfTI (.nii.gz) instead")
    return dicom


def conform(dataset: Dataset, modality: Modality) -> tuple[str, ...]:
    """Complete and mend a derived data set in place.

    Call it inside :func:`monai_sasm.io.silence.quiet`.

    Returns:
        Keywords of the attributes whose values were rewritten, emptied or dropped.
    """
    empty = (*_TYPE_2, *dicom_profile(modality).type_2)
    mended = _mend(dataset, empty)
    sex = text_of(dataset, "PatientSex")
    if sex not in ("", "M", "F", "O"):
        dataset.PatientSex = _SEXES.get(sex)
        mended.add("PatientSex")
    _complete(dataset, modality, empty)
    return tuple(sorted(mended))


def conform_enhanced(dataset: Dataset, modality: Modality) -> tuple[str, ...]:
    """The same for an Enhanced multi-frame object, whose place and scaling live in functional groups."""
    empty = _TYPE_2[: _TYPE_2.index("PatientPosition")]
    mended = _mend(dataset, empty)
    for keyword in empty:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    dataset.Modality = modality.value
    return tuple(sorted(mended))


def _complete(dataset: Dataset, modality: Modality, empty: tuple[str, ...]) -> None:
    for keyword in empty:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    for keyword in _NEVER_EMPTY:
        if keyword in dataset and not text_of(dataset, keyword):
            delattr(dataset, keyword)
    if ("WindowCenter" in dataset) is not ("WindowWidth" in dataset):
        for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
            dataset.pop(keyword, None)
    dataset.Modality = modality.value  # the SOP class says so already
    if "ImageType" not in dataset:
        dataset.ImageType = ["DERIVED", "PRIMARY"]
    if dicom_profile(modality).rescaled:
        _complete_rescale(dataset)
    if modality is Modality.MR:
        _complete_sequence(dataset)
    if text_of(dataset, "PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in dataset:
        dataset.DeidentificationMethod = dataset.get("DeidentificationMethod") or NOT_TOLD
    if not text_of(dataset, "FrameOfReferenceUID"):  # slices of one series share one, and it is known to no other
        origin = text_of(dataset, "StudyInstanceUID"), text_of(dataset, "SeriesInstanceUID")
        dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", *origin])
    _complete_laterality(dataset)


def _complete_rescale(dataset: Dataset) -> None:
    """Say how the new pixels are encoded where the source left it to the reader."""
    for keyword, identity in (("RescaleIntercept", "0"), ("RescaleSlope", "1")):
        if not text_of(dataset, keyword):
            setattr(dataset, keyword, identity)


def _complete_sequence(dataset: Dataset) -> None:
    """MR attributes that only some pulse sequences need (PS3.3 C.8.3.1), and the general term for an unnamed image."""
    sequence = text_of(dataset, "ScanningSequence").split("\\")
    for keyword, needed in (("RepetitionTime", "EP" not in sequence), ("InversionTime", "IR" in sequence)):
        if needed and keyword not in dataset:
            setattr(dataset, keyword, None)
    kind = text_of(dataset, "ImageType").split("\\")
    if len(kind) == 2:
        dataset.ImageType = [*kind, "OTHER"]


def _complete_laterality(dataset: Dataset) -> None:
    stated = any(text_of(dataset, keyword) for keyword in _LATERALITY)
    if stated or any(keyword in dataset for keyword in _LATERALITY[1:]):
        return
    if text_of(dataset, "BodyPartExamined") in _UNPAIRED.split():
        dataset.pop("Laterality", None)
    else:
        dataset.Laterality = None  # of a part that is one of a pair, or of which nothing is known


def _mend(dataset: Dataset, empty: tuple[str, ...]) -> set[str]:
    """Rewrite, empty (those that may be) or drop values that their representation does not allow, at every depth.

    Returns:
        Their keywords.
    """
    mended: set[str] = set()
    for tag in list(dataset.keys()):
        if tag.is_private:
            continue
        try:
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value:
                    mended |= _mend(item, empty)
            elif element.VR in _CHECKED and not _is_valid(element) and _replace(dataset, element, empty):
                mended.add(element.keyword or str(tag))
        except Exception:  # bytes that nobody can read; they are copied as they are, or stop the writer with a reason
            continue
    return mended


def _replace(dataset: Dataset, element: DataElement, empty: tuple[str, ...]) -> bool:
    """Whether a value that is not allowed was replaced, or is one that stays."""
    kept, dated = element.keyword in KEPT, element.VR in ("DA", "TM")
    if kept and not dated:
        return False
    values = [_text(value) for value in _values(element)]
    if element.keyword == "SpecificCharacterSet":  # text is not readable without it
        element.value = [_character_set(text) for text in values]
        return [_text(value) for value in _values(element)] != values
    texts = [text if _fits(element.VR, text) else _rewritten(element.VR, text) for text in values]
    if all(text is not None for text in texts):
        element.value = texts if len(texts) > 1 else texts[0]
    elif kept and any(re.search("[1-9]", text) for text in values):
        return False
    elif element.keyword in empty:
        element.value = None
    else:
        del dataset[element.tag]
    return True


def _values(element: DataElement) -> list[object]:
    if element.value is None:
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _is_valid(element: DataElement) -> bool:
    return all(_fits(element.VR, _text(value)) for value in _values(element))


def _text(value: object) -> str:
    original = getattr(value, "original_string", None)  # of numbers in text, as the file has them
    return str(value if original is None else original).rstrip(" \0")


def _fits(representation: str, text: str) -> bool:
    try:
        validate_value(representation, text, 2)  # pydicom.config.RAISE
    except ValueError:
        return False
    return representation != "IS" or not text.strip() or -(2**31) <= int(text) < 2**31


def _rewritten(representation: str, text: str) -> str | None:
    """The value in a form its representation allows; ``None`` where there is none."""
    try:
        new = _REWRITTEN[representation](text)
    except (KeyError, ValueError, OverflowError):
        return None
    return new if _fits(representation, new) else None


def _character_set(text: str) -> str:
    """A defined term of PS3.3 C.12.1.1.2 that is written with other signs; other text is left as it is."""
    known = _CHARACTER_SET.fullmatch(text.strip())
    if known is None:
        return "ISO_IR 192" if text.strip().upper() == "UTF-8" else text
    return f"ISO_IR {known[2]}" if known[1].upper() == "IR" else f"ISO 2022 IR {known[2]}"


def _whole(text: str) -> str:
    number = float(text)
    if not number.is_integer():
        raise ValueError("no whole number")
    return str(int(number))


def _date(text: str) -> str:
    """Of year, month and day with signs between them, as ACR-NEMA and others write them; or of one reading alone."""
    first, last = _YEAR_FIRST.fullmatch(text.strip()), _YEAR_LAST.fullmatch(text.strip())
    if first is not None:
        return f"{date(int(first[1]), int(first[3]), int(first[4])):%Y%m%d}"
    if last is None:
        raise ValueError("no date")
    one, other, year = int(last[1]), int(last[3]), int(last[4])
    if one <= 12 and other <= 12 and one != other:
        raise ValueError("day or month may come first")
    return f"{date(year, min(one, other), max(one, other)):%Y%m%d}"


_REWRITTEN: dict[str, Callable[[str], str]] = {
    "AS": lambda text: text.strip().zfill(4),
    "CS": lambda text: text.strip().upper(),
    "DA": _date,
    "DS": lambda text: format_number_as_ds(float(text)),
    "IS": _whole,
    "LO": lambda text: text.strip()[:64].replace("\\", "/"),
    "TM": lambda text: text.strip().replace(":", ""),  # as ACR-NEMA wrote times
}
