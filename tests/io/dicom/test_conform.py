"""Derived copies of faulty sources: valid where that invents nothing, and of the same patient, study and side."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pydicom
import pytest
from pydicom import config
from pydicom.dataset import Dataset

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.conform import NOT_TOLD, conform
from monai_sasm.io.dicom.write import write_series
from monai_sasm.io.silence import quiet
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import ct_slice, enhanced_ct, index, mr_slice, save_all
from tests.io.dicom.validators import assert_consistent, errors

DERIVATION = Derivation("monai_sasm", "0.1.0", {"toy": "ab" * 32}, {}, "noise reduction")
PATIENT = ("PatientBirthDate", "PatientSex")
STUDY = ("ReferringPhysicianName", "AccessionNumber", "StudyID")
PLACE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "SliceThickness")
CT_FAULTS = {  # the faults of real series, each in its combination: attributes to set, or to delete (None)
    "anonymised head": {**dict.fromkeys(PATIENT), "PatientIdentityRemoved": "YES", "DeidentificationMethod": ""},
    "converted": {**dict.fromkeys((*STUDY, *PLACE, "KVP", "BodyPartExamined")), "PatientAge": "0Y"},
    "ISO dates": {"PatientBirthDate": "1950-01-31", "StudyDate": "2024/1/2", "AcquisitionDate": "13.02.2024"},
    "phantom": {"BodyPartExamined": "JPEG 2000 Compressed Image", "PatientBirthDate": "00000000"},
    "no rescale": dict.fromkeys(("RescaleSlope", "RescaleIntercept", "RescaleType", "AcquisitionNumber")),
    "long numbers": {"SliceThickness": "2.4999999999999999999", "WindowCenter": "40,5", "WindowWidth": "400"},
    "old times": {"StudyDate": "2024.01.02", "StudyTime": "10:15:00", "InstanceNumber": "1.0", "PatientSex": "Male"},
    "large numbers": {
        "SeriesNumber": "2147483647",
        "InstanceNumber": "99999999999",
        "AcquisitionNumber": "-3000000000",
    },
    "series of 11 digits": {"SeriesNumber": "99999999999"},
    "no series number": {"SeriesNumber": None},
    "empty": {"PixelPaddingValue": "", "WindowCenter": "", "WindowWidth": "", "Laterality": "", "Modality": ""},
}
MR_FAULTS = {
    "converted": {
        **dict.fromkeys((*PATIENT, *STUDY, *PLACE, "ScanOptions", "EchoTrainLength", "MRAcquisitionType", "EchoTime")),
        **{"PatientAge": "22Y", "PatientIdentityRemoved": "YES"},
    },
    "no part": dict.fromkeys(("BodyPartExamined", "Manufacturer", "RepetitionTime")),
    "short type": {"ImageType": ["ORIGINAL", "PRIMARY"], "ScanningSequence": "IR"},
    "garbled": {
        "ImageType": ["ORIGINAL", "Primary (?)"],
        "EchoTime": "fast",
        "FlipAngle": "1e",
        "StationName": "S" * 40,
    },
}


def faulty(dataset: Dataset, faults: dict[str, object]) -> Dataset:
    """A data set with values as its file would have them, valid or not."""
    before, config.settings.writing_validation_mode = config.settings.writing_validation_mode, config.IGNORE
    try:
        for keyword, value in faults.items():
            if value is None:
                dataset.pop(keyword, None)
            else:
                setattr(dataset, keyword, None)
                dataset[keyword]._value = value  # past the conversion, which pydicom makes by the representation
    finally:
        config.settings.writing_validation_mode = before
    return dataset


def derived(slices: list[Dataset], folder: Path) -> list[Path]:
    (entry,) = index(save_all(slices, folder / "in"))
    return write_series(entry.load(), folder / "out", DERIVATION)


@pytest.mark.parametrize("faults", CT_FAULTS.values(), ids=CT_FAULTS)
def test_a_derived_ct_is_valid(faults: dict[str, object], tmp_path: Path) -> None:
    files = derived([faulty(ct_slice(number), faults) for number in range(2)], tmp_path)
    assert errors(files) == set()
    assert_consistent(files)


@pytest.mark.parametrize("faults", MR_FAULTS.values(), ids=MR_FAULTS)
def test_a_derived_mr_is_valid(faults: dict[str, object], tmp_path: Path) -> None:
    files = derived([faulty(mr_slice(number), faults) for number in range(2)], tmp_path)
    assert errors(files) == set()
    assert_consistent(files)


def test_values_are_rewritten_if_they_can_be_read_and_told_by_name_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = {**CT_FAULTS["old times"], **CT_FAULTS["long numbers"], "PatientAge": "7Y", "StationName": "room 4711" * 3}
    with caplog.at_level(logging.WARNING):
        new = pydicom.dcmread(derived([faulty(ct_slice(0), faults)], tmp_path)[0])
    assert (new.StudyDate, new.StudyTime, new.InstanceNumber) == ("20240102", "101500", 1)
    assert (new.PatientSex, new.PatientAge, new.SliceThickness) == ("M", "007Y", 2.5)
    assert not {"WindowCenter", "WindowWidth", "StationName"} & set(new.dir())
    (told,) = [record.getMessage() for record in caplog.records if "rewritten" in record.getMessage()]
    assert told.endswith(
        "InstanceNumber, PatientAge, PatientSex, SliceThickness, StationName, StudyDate, StudyTime, WindowCenter"
    )
    assert "4711" not in told


def test_a_valid_source_is_left_as_it_is() -> None:
    for dataset, modality in ((ct_slice(0), Modality.CT), (mr_slice(0), Modality.MR)):
        before = dataset.to_json()
        with quiet():
            assert conform(dataset, modality) == ()
        assert dataset.to_json() == before


def test_nothing_is_invented() -> None:
    dataset = ct_slice(0)
    for keyword in (*PATIENT, *STUDY, "KVP", "SliceThickness", "Manufacturer", "PatientPosition"):
        dataset.pop(keyword, None)
    dataset.PatientIdentityRemoved = "YES"
    with quiet():
        conform(dataset, Modality.CT)
    assert not any(dataset[keyword].value for keyword in (*PATIENT, *STUDY, "KVP", "SliceThickness", "PatientPosition"))
    assert dataset.DeidentificationMethod == NOT_TOLD
    method = ct_slice(0)
    method.PatientIdentityRemoved, method.DeidentificationMethodCodeSequence = "YES", [Dataset()]
    conform(method, Modality.CT)
    assert "DeidentificationMethod" not in method


@pytest.mark.parametrize("study", ["1.2.826.0.01.5", "1." + "2" * 70, "9.99.999"])
def test_patient_and_study_keep_what_others_know_them_by(study: str) -> None:
    known = {
        "StudyInstanceUID": study,
        "FrameOfReferenceUID": study,
        "PatientID": "P" * 70,
        "AccessionNumber": "A" * 20,
    }
    dataset = faulty(ct_slice(0), known)
    with quiet():
        assert conform(dataset, Modality.CT) == ()
    assert {keyword: str(dataset[keyword].value) for keyword in known} == known


KNOWN_BY = {  # as anonymisers and old systems write them
    **{"StudyInstanceUID": "05fa52f0e599f17b", "FrameOfReferenceUID": "Anonymous", "StudyID": "STUDY-2024-ABDOMEN-1"},
    **{"PatientBirthDate": "01.02.1950", "PatientID": "P" * 70, "AdmissionID": "A" * 70, "StudyDate": "spring 2024"},
}


def test_a_copy_lies_in_the_study_of_its_source_whatever_that_is_called(tmp_path: Path) -> None:
    faults = {**KNOWN_BY, "SeriesInstanceUID": "dbf603.x"}
    files = derived([faulty(ct_slice(number), faults) for number in range(2)], tmp_path)
    for file in files:
        new = pydicom.dcmread(file)
        with quiet():
            assert {keyword: str(new[keyword].value) for keyword in KNOWN_BY} == KNOWN_BY
            assert new.SeriesInstanceUID.is_valid
            assert new.SOPInstanceUID.is_valid
            assert new.ReferencedSeriesSequence[0].SeriesInstanceUID == "dbf603.x"
    named = "|".join([*KNOWN_BY, "ReferencedSeriesSequence"])
    assert all(re.search(named, error) for error in errors(files)), "what was kept is all that is not valid"


DATES = {
    **{"1950-01-31": "19500131", "1950.1.31": "19500131", "1950/01/31": "19500131", "1950-01-31T00:00": "19500131"},
    **{"31.01.1950": "19500131", "01/31/1950": "19500131", "02.02.1950": "19500202"},
    **{"01.02.1950": "01.02.1950", "1950-02-31": "1950-02-31", "about 1950": "about 1950", "1950-01/31": "1950-01/31"},
    **{"00000000": "", "0000-00-00": "", "unknown": ""},
}


@pytest.mark.parametrize(("told", "expected"), DATES.items())
def test_dates_are_rewritten_where_they_read_one_way(told: str, expected: str) -> None:
    dataset = faulty(ct_slice(0), {"PatientBirthDate": told, "AcquisitionDate": told})
    with quiet():
        assert ("PatientBirthDate" in conform(dataset, Modality.CT)) is (expected != told)
    assert str(dataset["PatientBirthDate"].value or "") == expected
    readable = expected if expected.isdigit() else None  # that of the acquisition identifies nobody: dropped
    assert dataset.get("AcquisitionDate") == readable


def test_orders_keep_their_numbers() -> None:
    orders = {"RequestedProcedureID": "R" * 20, "ScheduledProcedureStepID": "S" * 20}
    item = faulty(Dataset(), {**orders, "StudyInstanceUID": "a1b2.3"})
    dataset = ct_slice(0, RequestAttributesSequence=[item])
    with quiet():
        assert conform(dataset, Modality.CT) == ()
    assert {name: item[name].value for name in orders} == orders
    assert item.StudyInstanceUID == "a1b2.3"


def test_sides_are_kept_and_asked_for_only_where_there_are_two() -> None:
    def laterality(**changes: object) -> object:
        dataset = ct_slice(0, **changes)
        with quiet():
            conform(dataset, Modality.CT)
        return dataset.get("Laterality", "absent")

    assert laterality(BodyPartExamined="KNEE") in (None, "")
    assert laterality(BodyPartExamined="") in (None, "")
    assert laterality(BodyPartExamined="HEAD", Laterality="") == "absent"
    assert laterality(BodyPartExamined="CHEST", Laterality="R") == "R"


def test_a_rescale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    save_all([faulty(ct_slice(0), {"RescaleSlope": "1,5"})], tmp_path / "slope")
    save_all([faulty(mr_slice(0), {"RescaleIntercept": "none"})], tmp_path / "intercept")
    frames = enhanced_ct([0.0, 2.5])
    rescale = frames.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0]
    faulty(rescale, {"RescaleSlope": "1,5"})
    save_all([frames], tmp_path / "frames")
    for folder in ("slope", "intercept", "frames"):
        (entry,) = index(tmp_path / folder)
        assert entry.refusal is not None
        assert "no usable rescale" in entry.refusal
