"""Derived series: exact pixels, a complete derivation block, and headers that independent validators accept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.write import write_series
from monai_sasm.io.volume import Volume
from tests.data import DATA
from tests.io.dicom.dicom_cases import (
    MR,
    PADDING,
    changed,
    ct_slice,
    enhanced_ct,
    index,
    mr_slice,
    save,
    save_all,
    stored_values,
    tilted,
    uid,
)
from tests.io.dicom.validators import assert_consistent, errors

DERIVATION = Derivation(
    "monai_sasm", "0.1.0", {"lowdose_ct_unet": "ab" * 32}, {"strength": 0.8}, "noise reduction", repairs=("low-dose",)
)
REAL = {
    "L096 quarter dose": "ct_ldct_pairs/L096_dicom/quarter",
    "tilted head": "ct_volumes/ge_head_tilt_varspacing",
    "body CT, UIDs emptied": "ct_volumes/totalsegmentator/example_ct_dicom",
    "tumour T1": "mri/tumour_PGBM-003_dicom/T1post",
    "tumour FLAIR": "mri/tumour_PGBM-003_dicom/FLAIR",
}

KEPT = [
    "StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientBirthDate", "StudyDate", "StudyTime",
    "AccessionNumber", "AcquisitionDate", "AcquisitionTime", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "RescaleSlope", "RescaleIntercept", "RescaleType", "BitsStored", "PixelRepresentation",
    "InstanceNumber", "SpecificCharacterSet",
]  # fmt: skip


def load(path: Path) -> Volume:
    (entry,) = index(path)
    return entry.load()


def restored(volume: Volume) -> Volume:
    """A mild change of every pixel, none of it a whole number."""
    noise = np.random.default_rng(0).normal(0, 3, volume.array.shape)
    return volume.with_array((volume.array + noise).astype(np.float32))


def derive(volume: Volume, folder: Path, **options: bool) -> list[Dataset]:
    return [pydicom.dcmread(file) for file in write_series(volume, folder, DERIVATION, **options)]


@pytest.fixture
def ct_folder(tmp_path: Path) -> Path:
    return save_all([ct_slice(number) for number in range(4)], tmp_path / "source")


def test_unchanged_pixels_come_back_bit_for_bit(ct_folder: Path, tmp_path: Path) -> None:
    volume = load(ct_folder)
    derived = derive(volume, tmp_path / "out")
    assert [Path(str(each.filename)).name for each in derived] == [f"IM000{number}.dcm" for number in (1, 2, 3, 4)]
    for path, each in zip(volume.source.paths, derived, strict=True):
        assert each.PixelData == pydicom.dcmread(path).PixelData
    again = load(tmp_path / "out")
    assert again.array.tobytes() == volume.array.tobytes()
    assert again.affine.tobytes() == volume.affine.tobytes()


def test_changed_pixels_are_rounded_and_padding_is_kept(ct_folder: Path, tmp_path: Path) -> None:
    volume = restored(load(ct_folder))
    stored = np.stack([each.pixel_array for each in derive(volume, tmp_path / "out")])
    padding = np.zeros(stored.shape, bool)
    padding[:, :4, :4] = True
    assert (stored[padding] == PADDING).all()
    wanted = np.rint(volume.array[0].astype(np.float64) + 1024)
    np.testing.assert_array_equal(stored[~padding], wanted[~padding])


def test_no_tissue_becomes_padding(ct_folder: Path, tmp_path: Path) -> None:
    volume = load(ct_folder)
    array = volume.array.copy()
    array[0, 0, 10, 10] = PADDING - 1024  # exactly the value that would read as "no image here"
    stored = derive(volume.with_array(array), tmp_path / "out")[0].pixel_array
    assert stored[10, 10] == PADDING + 1


def test_padding_that_tissue_has_too_is_told(tmp_path: Path) -> None:
    slices = [ct_slice(number, PixelPaddingValue=1100) for number in range(2)]
    volume = load(save_all(slices, tmp_path / "source"))
    alike = int((volume.array == 1100 - 1024).sum())
    assert alike > 10
    assert volume.notes == (f"{alike} pixels have the value of padding within the image; they are restored as tissue",)
    new = derive(volume.with_array(volume.array + np.float32(7)), tmp_path / "out")
    old = [pydicom.dcmread(path).pixel_array for path in volume.source.paths]
    for one, before in zip(new, old, strict=True):
        np.testing.assert_array_equal(one.pixel_array, before + 7)


def test_per_slice_slopes_are_inverted_per_slice(tmp_path: Path) -> None:
    slices = [ct_slice(number, RescaleSlope=f"{0.5 + number / 3:.6f}", PixelPaddingValue=None) for number in range(4)]
    volume = restored(load(save_all(slices, tmp_path / "source")))
    again = load_written(volume, tmp_path / "out")
    for number in range(4):
        assert np.abs(again.array[0, number] - volume.array[0, number]).max() <= (0.5 + number / 3) / 2 + 1e-3


def load_written(volume: Volume, folder: Path) -> Volume:
    write_series(volume, folder, DERIVATION)
    return load(folder)


def test_values_beyond_bits_stored_are_clipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = load(save_all([mr_slice(number) for number in range(3)], tmp_path / "source"))
    array = volume.array.copy()
    array[0, 1, 5, 5], array[0, 1, 6, 6], array[0, 2, 0, 0] = 9999, -12, 4095
    with caplog.at_level(logging.WARNING):
        derived = derive(volume.with_array(array), tmp_path / "out")
    assert derived[1].pixel_array[5, 5] == 4095
    assert derived[1].pixel_array[6, 6] == 0
    assert "2 restored pixel(s)" in caplog.text


def test_slices_that_differ_in_bits_stored_are_one_volume(tmp_path: Path) -> None:
    """Some encoders fit Bits Stored to each slice; whichever comes first, the others keep theirs."""
    slices = [mr_slice(number, BitsStored=bits, HighBit=bits - 1) for number, bits in enumerate((12, 14, 13))]
    volume = load(save_all(slices, tmp_path / "source"))
    array = volume.array.copy()
    array[0, :, 5, 5] = 9999
    derived = derive(volume.with_array(array), tmp_path / "out")
    assert [one.BitsStored for one in derived] == [12, 14, 13]
    assert [one.pixel_array[5, 5] for one in derived] == [4095, 9999, 8191]


def test_not_a_number_is_an_error_and_leaves_nothing(ct_folder: Path, tmp_path: Path) -> None:
    volume = load(ct_folder)
    array = volume.array.copy()
    array[0, 3, 0, 30] = np.nan
    with pytest.raises(ValueError, match="finite"):
        write_series(volume.with_array(array), tmp_path / "results" / "out", DERIVATION)
    assert list((tmp_path / "results").iterdir()) == []


def test_derivation_block(ct_folder: Path, tmp_path: Path) -> None:
    volume = restored(load(ct_folder))
    for path, new in zip(volume.source.paths, derive(volume, tmp_path / "out"), strict=True):
        old = pydicom.dcmread(path)
        assert new.SOPClassUID == old.SOPClassUID
        assert new.SOPInstanceUID == new.file_meta.MediaStorageSOPInstanceUID != old.SOPInstanceUID
        assert new.SeriesInstanceUID != old.SeriesInstanceUID
        assert new.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        for kept in KEPT:
            assert new[kept].value == old[kept].value, kept
        assert list(new.ImageType) == ["DERIVED", "PRIMARY", "AXIAL"]
        assert (new.SeriesNumber, new.SeriesDescription) == (1003, "Abdomen 2.5 [SASM]")
        assert "lowdose_ct_unet (abababababab)" in new.DerivationDescription
        assert "strength=0.8" in new.DerivationDescription
        assert new.DerivationCodeSequence[-1].CodeValue == "113087"
        (image,) = new.SourceImageSequence
        assert image.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert image.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
        assert image.SpatialLocationsPreserved == "YES"
        (series,) = new.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == old.SeriesInstanceUID
        assert series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        equipment = new.ContributingEquipmentSequence[-1]
        assert equipment.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert (equipment.ManufacturerModelName, equipment.SoftwareVersions) == ("monai_sasm", "0.1.0")
        assert new.SeriesDate == new.ContentDate == new.InstanceCreationDate != old.SeriesDate


@pytest.mark.parametrize(
    ("repairs", "codes"),
    [
        (("noise",), ["113087 DCM"]),
        (("low-resolution",), ["113086 DCM"]),
        (("noise", "low-dose", "low-resolution"), ["113087 DCM", "113086 DCM"]),
        (("motion",), ["PROCESSING 99SASM"]),
        ((), ["PROCESSING 99SASM"]),
    ],
)
@pytest.mark.parametrize("enhanced", [False, True])
def test_codes_say_what_was_repaired(
    repairs: tuple[str, ...], codes: list[str], enhanced: bool, tmp_path: Path
) -> None:
    """Super-resolution is no smoothing, and of an unknown repair nothing is said that it may not be."""
    source = save(enhanced_ct([0.0, 2.5]) if enhanced else ct_slice(0), tmp_path / "in" / "a")
    (file,) = write_series(restored(load(source)), tmp_path / "out", replace(DERIVATION, repairs=repairs))
    new = pydicom.dcmread(file)
    steps = [group.DerivationImageSequence[-1] for group in new.get("PerFrameFunctionalGroupsSequence", [])]
    for step in steps or [new]:
        told = [f"{item.CodeValue} {item.CodingSchemeDesignator}" for item in step.DerivationCodeSequence]
        assert told == codes
    if not enhanced:
        assert errors([file]) == set()


@pytest.mark.parametrize(
    ("number", "expected"), [("3", 1003), ("2147482647", 2147483647), ("2147483647", 2147483647), ("99999999999", None)]
)
def test_series_numbers_stay_within_their_range(number: str, expected: int | None, tmp_path: Path) -> None:
    source = save(ct_slice(0, SeriesNumber=number), tmp_path / "in" / "a")
    (new,) = derive(restored(load(source)), tmp_path / "out")
    assert new.SeriesNumber == expected


@pytest.mark.parametrize("length", [0, 40, 900, 1024])
def test_what_was_done_before_is_kept_as_far_as_it_fits(length: int, tmp_path: Path) -> None:
    before = ("Filtered by the scanner; " + "n" * 1024)[:length]
    source = save(ct_slice(0, DerivationDescription=before), tmp_path / "in" / "a")
    (new,) = derive(restored(load(source)), tmp_path / "out")
    said = new.DerivationDescription
    assert len(said) == min(1024, len(before) + 2 * bool(before) + len(DERIVATION.description))
    assert said.endswith(DERIVATION.description)
    assert said.startswith(before[:800])
    assert ("..." in said) is (len(said) == 1024)


def test_uids_repeat_with_the_same_derivation_only(ct_folder: Path, tmp_path: Path) -> None:
    volume = load(ct_folder)
    first, second = derive(volume, tmp_path / "a"), derive(volume, tmp_path / "b")
    other = write_series(volume, tmp_path / "c", Derivation("monai_sasm", "0.1.0", {}, {"strength": 0.3}))
    uids = [each.SOPInstanceUID for each in first]
    assert uids == [each.SOPInstanceUID for each in second]
    assert first[0].SeriesInstanceUID == second[0].SeriesInstanceUID
    assert len({each.SeriesInstanceUID for each in first}) == 1
    assert not set(uids) & {pydicom.dcmread(file).SOPInstanceUID for file in other}
    assert len(set(uids)) == len(uids)


def code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def decorated(number: int) -> Dataset:
    """A slice with everything that must be dropped, and a history that must be continued."""
    dataset = ct_slice(number)
    dataset.SmallestImagePixelValue, dataset.LargestImagePixelValue = 0, 1000
    dataset.add_new(0x60000010, "US", 64)
    dataset.add_new(0x60003000, "OW", b"\0\0" * 256)
    dataset.private_block(0x0009, "ACME", create=True).add_new(1, "LO", "secret")
    item = Dataset()
    item.Manufacturer = "Scanner"
    item.PurposeOfReferenceCodeSequence = Sequence([code("109101", "Acquisition Equipment")])
    item.private_block(0x0011, "ACME", create=True).add_new(1, "LO", "nested secret")
    dataset.ContributingEquipmentSequence = Sequence([item])
    icon = Dataset()
    icon.Rows = icon.Columns = 1
    dataset.IconImageSequence = Sequence([icon])
    dataset.SeriesDescription = "a" * 64
    dataset.DerivationDescription = "reformatted"
    return dataset


def private_tags(dataset: Dataset) -> list[str]:
    return [str(element.tag) for element in dataset.iterall() if element.tag.is_private]


def test_stale_and_private_attributes_are_dropped_and_history_is_kept(tmp_path: Path) -> None:
    volume = restored(load(save_all([decorated(number) for number in range(2)], tmp_path / "source")))
    (new, _) = derive(volume, tmp_path / "out")
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "IconImageSequence"):
        assert keyword not in new
    assert not [element for element in new if element.tag.group == 0x6000]
    assert private_tags(new) == []
    assert [item.Manufacturer for item in new.ContributingEquipmentSequence] == ["Scanner", "monai_sasm"]
    assert new.DerivationDescription.startswith("reformatted; noise reduction by monai_sasm")
    assert new.SeriesDescription == "a" * 57 + " [SASM]"
    (kept, _) = derive(volume, tmp_path / "private", keep_private=True)
    assert len(private_tags(kept)) == 4


@pytest.mark.parametrize(("flag", "ratio"), [("01", "12.5"), ("00", None)])
def test_a_lossy_flag_is_carried(tmp_path: Path, flag: str, ratio: str | None) -> None:
    lossy = {"LossyImageCompression": flag}
    if ratio:
        lossy |= {"LossyImageCompressionRatio": ratio, "LossyImageCompressionMethod": "ISO_15444_1"}
    volume = load(save_all([ct_slice(number, **lossy) for number in range(2)], tmp_path / "source"))
    (new, _) = derive(volume, tmp_path / "out")
    assert new.LossyImageCompression == flag
    assert str(new.get("LossyImageCompressionRatio", "")) == (ratio or "")


def test_a_lossy_transfer_syntax_raises_the_flag(tmp_path: Path) -> None:
    source = Path(pydicom.__file__).parent / "data" / "test_files" / "693_J2KI.dcm"
    dataset = pydicom.dcmread(source)
    changed(dataset, {"LossyImageCompression": None, "LossyImageCompressionRatio": None})
    dataset.save_as(tmp_path / "silent.dcm")
    (new,) = derive(load(tmp_path / "silent.dcm"), tmp_path / "out")
    assert (new.LossyImageCompression, new.LossyImageCompressionMethod) == ("01", "ISO_15444_1")
    assert float(new.LossyImageCompressionRatio) > 1


def test_deriving_from_our_own_result_is_noted(ct_folder: Path, tmp_path: Path) -> None:
    volume = load_written(restored(load(ct_folder)), tmp_path / "once")
    assert "already derived by this software: restoring it again smooths twice" in volume.notes
    (new, *_) = derive(restored(volume), tmp_path / "twice")
    assert len(new.ContributingEquipmentSequence) == 2
    assert len(new.DerivationCodeSequence) == 2
    assert new.SeriesNumber == 2003


def test_a_series_that_stays_as_it_was_says_so(ct_folder: Path, tmp_path: Path) -> None:
    volume = load(ct_folder)
    barely = volume.with_array(volume.array + np.float32(0.2))  # rounds back to the stored numbers
    for number, unchanged in enumerate((volume, barely)):
        files = write_series(unchanged, tmp_path / f"copy{number}", DERIVATION)
        assert_consistent(files)
        assert errors(files) == set()
        for new in map(pydicom.dcmread, files):
            assert new.SeriesDescription == "Abdomen 2.5 [SASM unchanged]"
            assert new.DerivationDescription.startswith("Copied: no pixel was changed by monai_sasm")
            assert "DerivationCodeSequence" not in new
            assert new.ImageType[0] == "DERIVED"
    last = volume.array.copy()
    last[0, -1, 20, 20] += 1
    (new, *_) = derive(volume.with_array(last), tmp_path / "changed")
    assert new.SeriesDescription == "Abdomen 2.5 [SASM]"
    assert new.DerivationCodeSequence[0].CodeMeaning == "Smoothing"


def test_uids_follow_the_pixels_as_well_as_the_source(ct_folder: Path, tmp_path: Path) -> None:
    def uids(name: str) -> tuple[set[str], set[str]]:
        new = derive(restored(load(ct_folder)), tmp_path / name)
        return {one.SOPInstanceUID for one in new}, {one.SeriesInstanceUID for one in new}

    first = uids("first")
    assert uids("again") == first
    for path in ct_folder.iterdir():
        again = pydicom.dcmread(path)
        if again.InstanceNumber == 2:
            again.PixelData = (again.pixel_array + 1).astype("<i2").tobytes()
            again.save_as(path)
    other = uids("corrected")
    assert not first[0] & other[0]
    assert not first[1] & other[1]
    assert (len(other[0]), len(other[1])) == (4, 1)


def test_parts_of_a_split_series_are_series_of_their_own(tmp_path: Path) -> None:
    slices = [
        mr_slice(number, SOPInstanceUID=uid("echo", echo, number), EchoNumbers=None, EchoTime=echo)
        for echo in (5, 12, 19)
        for number in range(3)
    ]
    for one in slices:
        one.PixelData = (stored_values(one.InstanceNumber - 1) + int(one.EchoTime)).astype("<u2").tobytes()
    files: list[Path] = []
    for entry in index(save_all(slices, tmp_path / "in")):
        files += write_series(restored(entry.load()), tmp_path / entry.name, DERIVATION)
    assert_consistent(files)
    found = {(str(new.SeriesInstanceUID), str(new.SeriesTime)) for new in map(pydicom.dcmread, files)}
    assert len(files) == 9
    assert len(found) == len({series for series, _ in found}) == 3


def test_refusals_of_the_writer(ct_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = load(ct_folder)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(FileExistsError, match="holds files already"):
        write_series(volume, tmp_path / "there", DERIVATION)
    with pytest.raises(ValueError, match="from DICOM"):
        write_series(Volume(volume.array, volume.modality, volume.affine, 0), tmp_path / "out", DERIVATION)
    write_series(volume, ct_folder / "inside", DERIVATION)
    assert "inside the folder of its source" in caplog.text
    save(ct_slice(0, SOPInstanceUID=uid("someone else")), volume.source.paths[0])
    with pytest.raises(RefusedError, match="changed since it was read"):
        write_series(volume, tmp_path / "out", DERIVATION)
    assert not (tmp_path / "out").exists()
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".")]


@pytest.mark.parametrize("make", [ct_slice, mr_slice, tilted, decorated], ids=lambda make: make.__name__)
def test_validators_accept_synthetic_series(make: Callable[[int], Dataset], tmp_path: Path) -> None:
    source = save_all([make(number) for number in range(4)], tmp_path / "source")
    files = write_series(restored(load(source)), tmp_path / "out", DERIVATION)
    assert errors(files) == set()
    assert_consistent([*files, *source.iterdir()])


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set SASM_DATA")
@pytest.mark.parametrize("folder", REAL.values(), ids=REAL.keys())
def test_validators_accept_real_series_whatever_their_sources_lack(folder: str, tmp_path: Path) -> None:
    volume = load(DATA / folder)
    files = write_series(restored(volume), tmp_path / "out", DERIVATION)
    assert len(files) == volume.array.shape[1]
    assert errors(files) == set()
    assert_consistent(files)
    again = load(tmp_path / "out")
    assert again.geometry == volume.geometry
    assert again.affine.tobytes() == volume.affine.tobytes()
    assert private_tags(pydicom.dcmread(files[0])) == []


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set SASM_DATA")
def test_emptied_uids_are_filled_in(tmp_path: Path) -> None:
    new, *others = derive(load(DATA / REAL["body CT, UIDs emptied"]), tmp_path / "out")
    assert new.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert new.StudyInstanceUID
    assert {other.StudyInstanceUID for other in others} == {new.StudyInstanceUID}
    assert "ReferencedSeriesSequence" not in new


def test_mr_series_keeps_its_class(tmp_path: Path) -> None:
    volume = restored(load(save_all([mr_slice(number) for number in range(2)], tmp_path / "source")))
    (new, _) = derive(volume, tmp_path / "out")
    assert (new.SOPClassUID, new.Modality, new.BitsStored) == (MR, "MR", 12)
    assert "RescaleSlope" not in new
    assert np.abs(new.pixel_array - volume.array[0, 0]).max() <= 0.5


def test_a_damaged_attribute_is_refused_unless_it_is_dropped_anyway(tmp_path: Path) -> None:
    file = save(ct_slice(0), tmp_path / "source" / "a")
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"\x08\x00\x50\x00SH", b"\x08\x00\x50\x00S\xf3"))  # VR of Accession Number
    with pytest.raises(RefusedError, match="damaged"):
        write_series(load(file), tmp_path / "out", DERIVATION)
    assert not (tmp_path / "out").exists()
    private = save(decorated(0), tmp_path / "private" / "a")
    whole = private.read_bytes()
    assert b"\x09\x00\x01\x10LO" in whole
    private.write_bytes(whole.replace(b"\x09\x00\x01\x10LO", b"\x09\x00\x01\x10L\xf3"))
    assert private_tags(derive(load(private), tmp_path / "clean")[0]) == []
