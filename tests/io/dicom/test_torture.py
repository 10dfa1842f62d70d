"""The reader's torture matrix: sixteen folders that common readers get silently wrong."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom.header import read_header
from monai_sasm.io.dicom.write import write_series
from monai_sasm.io.entry import Entry
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import (
    AXIAL,
    PADDING,
    SIZE,
    SLICES,
    SPACING,
    STEP,
    ct_slice,
    enhanced_ct,
    file_meta_of,
    index,
    mr_slice,
    other_object,
    save,
    save_all,
    stored_values,
    tilted,
    uid,
)


def the_one(folder: Path) -> Entry:
    entries = index(folder)
    assert len(entries) == 1, [(entry.name, entry.refusal) for entry in entries]
    return entries[0]


def accepted(folder: Path) -> list[Entry]:
    return [entry for entry in index(folder) if entry.refusal is None]


def expected_hu(number: int) -> np.ndarray:
    values = stored_values(number).astype(np.float32)
    values[:4, :4] = PADDING
    return values - 1024


def test_plain_series_has_right_pixels_geometry_and_unit(tmp_path: Path) -> None:
    entry = the_one(save_all([ct_slice(number) for number in range(SLICES)], tmp_path))
    volume = entry.load()
    assert (entry.format, entry.modality, entry.geometry, entry.notes) == ("dicom", Modality.CT, "regular", ())
    assert volume.array.shape == (1, SLICES, SIZE, SIZE)
    assert volume.slice_axis == 0
    for number in range(SLICES):
        np.testing.assert_array_equal(volume.array[0, number], expected_hu(number))
    # RAS position of voxel (slice 3, row 5, column 7), by hand: LPS (-20 + 7*0.7, -30 + 5*0.8, 3*2.5)
    np.testing.assert_allclose(volume.affine @ [3, 5, 7, 1], [15.1, 26.0, 7.5, 1], atol=1e-9)


def test_name_is_stable_and_free_of_patient_data(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(2)], tmp_path / "Mueller_Jane")
    save_all([ct_slice(number) for number in range(2)], tmp_path / "elsewhere")
    first, second = the_one(tmp_path / "Mueller_Jane"), the_one(tmp_path / "elsewhere")
    assert first.name == second.name
    assert first.name.startswith("CT-series003-")
    assert "ller" not in first.name
    assert "SECRET" not in first.name


def test_per_slice_rescale(tmp_path: Path) -> None:
    slices = [ct_slice(number, RescaleSlope=f"{1 + number / 8}") for number in range(SLICES)]
    volume = the_one(save_all(slices, tmp_path)).load()
    for number in range(SLICES):
        wanted = (expected_hu(number) + 1024) * (1 + number / 8) - 1024
        np.testing.assert_array_equal(volume.array[0, number], wanted.astype(np.float32))


def test_gantry_tilt_keeps_the_shear(tmp_path: Path) -> None:
    entry = the_one(save_all([tilted(number) for number in range(SLICES)], tmp_path))
    volume = entry.load()
    assert entry.geometry == "tilted"
    assert any("15.0 degrees" in note for note in entry.notes)
    np.testing.assert_allclose(volume.affine[:3, 0], [0, 0, STEP], atol=1e-9)  # along the table, not the normal
    np.testing.assert_array_equal(volume.array[0, 9], expected_hu(9))


def test_missing_slice_is_a_gap(tmp_path: Path) -> None:
    entry = the_one(save_all([ct_slice(number) for number in range(SLICES) if number != 6], tmp_path))
    volume = entry.load()
    assert entry.geometry == volume.geometry == "gap"
    assert entry.notes[0].startswith("1 slice position(s) missing")
    assert volume.array.shape[1] == SLICES - 1
    assert [position[2] for position in volume.source.positions] == [STEP * n for n in range(SLICES) if n != 6]


def test_a_repeated_slice_that_nothing_tells_apart_is_left_out(tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(SLICES)]
    again = ct_slice(5, InstanceNumber=40, SOPInstanceUID=uid("again"))
    again.PixelData = (stored_values(5) + 77).tobytes()
    entry = the_one(save_all([*slices, again], tmp_path))
    volume = entry.load()
    assert entry.geometry == "regular"
    assert entry.notes == ("1 duplicate slice(s) left out, the highest Instance Number kept",)
    np.testing.assert_array_equal(volume.array[0, 5], stored_values(5).astype(np.float32) + 77 - 1024)


def test_localizer_in_the_same_series_is_set_aside(tmp_path: Path) -> None:
    scout = ct_slice(
        99, series="plain", position=(-20, 0, 100), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
    )  # fmt: skip
    entries = index(save_all([*(ct_slice(number) for number in range(SLICES)), scout], tmp_path))
    assert [entry.geometry for entry in entries] == ["regular", "unknown"]
    assert len(entries[0].paths) == SLICES
    assert "localizer" in str(entries[1].refusal)


PLANES = ([1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1])


@pytest.mark.parametrize(
    ("description", "protocol"),
    [
        ("localizer", ""),
        ("AAHScout_MPR", ""),
        ("3-Plane Loc SSFSE", ""),
        ("3PL_T2", ""),
        ("MRT", "Survey_SHC"),
        ("", "Lokalisator"),
    ],
)
def test_mr_slices_in_several_planes_are_a_localizer_by_their_description(
    tmp_path: Path, description: str, protocol: str
) -> None:
    """Its Image Type says nothing: ORIGINAL, PRIMARY, M, ND."""
    names = {"SeriesDescription": description, "ProtocolName": protocol}
    slices = [mr_slice(number, ImageOrientationPatient=PLANES[number % 3], **names) for number in range(6)]
    entry = the_one(save_all(slices, tmp_path))
    assert entry.refusal == "a localizer (scout) by its description, with slices in several planes; it is left as it is"
    assert (len(entry.paths), entry.unreadable, entry.forced) == (6, False, None)


def test_planes_or_a_name_alone_make_no_localizer(tmp_path: Path) -> None:
    for place, name, planes in (("named", "localizer", 1), ("planes", "knee pd explained", 3)):
        slices = [
            mr_slice(number, SeriesDescription=name, ImageOrientationPatient=PLANES[number % planes])
            for number in range(6)
        ]
        assert {entry.refusal for entry in index(save_all(slices, tmp_path / place))} == {None}


@pytest.mark.parametrize(
    "attribute", ["TemporalPositionIdentifier", "AcquisitionNumber", "TriggerTime", "EchoNumbers", "EchoTime"]
)
def test_two_time_points_or_echoes_become_two_volumes(tmp_path: Path, attribute: str) -> None:
    slices = [
        mr_slice(number, SOPInstanceUID=uid(attribute, time, number), **{attribute: time})
        for time in (1, 2)
        for number in range(8)
    ]
    for time, dataset in zip(np.repeat([0, 1], 8), slices, strict=True):
        dataset.PixelData = (stored_values(dataset.InstanceNumber - 1) + 300 * int(time)).astype("<u2").tobytes()
    entries = index(save_all(slices, tmp_path))
    assert [(entry.geometry, entry.refusal, len(entry.paths)) for entry in entries] == [("regular", None, 8)] * 2
    assert entries[0].name != entries[1].name
    means = sorted(float(entry.load().array.mean()) for entry in entries)
    assert means[1] - means[0] == pytest.approx(300, abs=1e-2)


def test_repeats_that_nothing_tells_apart_are_taken_slice_by_slice(tmp_path: Path) -> None:
    slices = [mr_slice(number, SOPInstanceUID=uid("repeat", time, number)) for time in (1, 2) for number in range(8)]
    entry = the_one(save_all(slices, tmp_path))
    assert (entry.refusal, entry.geometry) == (None, "irregular")
    assert "8 of 8 slice positions occur more than once" in entry.notes[0]
    assert "all by one white: if they are of several times, echoes or b-values, the dark ones" in entry.notes[0]
    assert entry.notes[0].endswith("restore the files of each of them alone")
    assert entry.notes[0] in entry.load().notes
    volume = entry.load()
    assert volume.array.shape[1] == 16
    assert [position[2] for position in volume.source.positions] == [STEP * (n // 2) for n in range(16)]


def test_a_pair_of_attributes_tells_volumes_apart(tmp_path: Path) -> None:
    pairs = [("0", None), ("1000", [1.0, 0, 0]), ("1000", [0, 1.0, 0]), ("2000", [1.0, 0, 0])]
    slices = []
    for volume, (weight, direction) in enumerate(pairs):
        for number in range(4):
            one = mr_slice(number, SOPInstanceUID=uid("dwi", volume, number), DiffusionBValue=float(weight))
            if direction:
                one.DiffusionGradientOrientation = direction
            one.PixelData = (stored_values(number) + 100 * volume).astype("<u2").tobytes()
            slices.append(one)
    entries = index(save_all(slices, tmp_path))
    assert [(entry.geometry, entry.refusal, len(entry.paths)) for entry in entries] == [("regular", None, 4)] * 4
    assert all("DiffusionBValue and DiffusionGradientOrientation" in entry.notes[-1] for entry in entries)
    means = sorted(float(entry.load().array.mean()) for entry in entries)
    assert np.diff(means) == pytest.approx([100, 100, 100], abs=0.01)


def test_variable_spacing_keeps_native_positions(tmp_path: Path) -> None:
    heights = [number * 1.25 if number < 8 else 10 + (number - 8) * 5.0 for number in range(SLICES)]
    slices = [ct_slice(number, position=(-20, -30, z)) for number, z in enumerate(heights)]
    entry = the_one(save_all(slices, tmp_path))
    volume = entry.load()
    assert entry.geometry == "gap"  # steps of 1.25 and 5.0 mm: whole multiples
    assert [position[2] for position in volume.source.positions] == heights
    slices = [ct_slice(number, position=(-20, -30, number**1.3)) for number in range(SLICES)]
    assert the_one(save_all(slices, tmp_path / "curved")).geometry == "irregular"


def test_order_comes_from_positions_not_from_instance_numbers(tmp_path: Path) -> None:
    slices = [ct_slice(number, InstanceNumber=(number * 5) % SLICES) for number in range(SLICES)]
    volume = the_one(save_all(slices, tmp_path)).load()
    np.testing.assert_array_equal(volume.array[0, 11], expected_hu(11))
    assert volume.geometry == "regular"


@pytest.mark.parametrize("cut", [0.9, 0.3, 0.08])
def test_a_truncated_file_refuses_its_series(tmp_path: Path, cut: float) -> None:
    save_all([ct_slice(number) for number in range(SLICES)], tmp_path)
    victim = sorted(tmp_path.iterdir())[4]
    victim.write_bytes(victim.read_bytes()[: int(cut * victim.stat().st_size)])
    entries = index(tmp_path)
    assert all(entry.refusal for entry in entries), [entry.notes for entry in entries]
    assert sum(len(entry.paths) for entry in entries) == SLICES
    assert any("hole" in str(entry.refusal) and len(entry.paths) == SLICES - 1 for entry in entries)


def test_mixed_folder(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(SLICES)], tmp_path / "a" / "deep" / "er")
    save_all([mr_slice(number) for number in range(8)], tmp_path / "a")
    save(ct_slice(0, series="scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), tmp_path / "scout")
    save(other_object("1.2.840.10008.5.1.4.1.1.88.22", "SR"), tmp_path / "report.dcm")
    save(other_object("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"), tmp_path / "rs")
    save(other_object("1.2.840.10008.1.3.10", ""), tmp_path / "DICOMDIR")
    (tmp_path / "notes.txt").write_text("not DICOM")
    (tmp_path / "empty.dcm").write_bytes(b"")
    entries = index(tmp_path)
    assert [(entry.modality, len(entry.paths)) for entry in entries if entry.refusal is None] == [
        (Modality.CT, SLICES),
        (Modality.MR, 8),
    ]
    reasons = " | ".join(str(entry.refusal) for entry in entries if entry.refusal)
    for word in ("localizer", "Enhanced SR", "RT Structure Set", "DICOMDIR", "is empty"):
        assert word in reasons
    assert len(entries) == 7


@pytest.mark.parametrize(
    "syntax",
    ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"],
    ids=["JPEG-LS", "J2K", "RLE"],
)
def test_compressed_syntaxes_are_exact(tmp_path: Path, syntax: str) -> None:
    pytest.importorskip("pydicom", minversion="3", reason="pydicom 2 cannot compress, so the case cannot be built")
    slices = [ct_slice(number) for number in range(4)]
    for dataset in slices:
        dataset.file_meta = file_meta_of(dataset)
        dataset.compress(syntax, generate_instance_uid=False)
    volume = the_one(save_all(slices, tmp_path)).load()
    for number in range(4):
        np.testing.assert_array_equal(volume.array[0, number], expected_hu(number))


@pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "big endian"])
def test_uncompressed_encodings_are_exact(tmp_path: Path, implicit: bool) -> None:
    pytest.importorskip("pydicom", minversion="3", reason="written with the pydicom 3 API")
    import pydicom

    for number in range(3):
        dataset = pydicom.dcmread(save(ct_slice(number), tmp_path / "source" / str(number)))
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.2"
        if not implicit:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
        (tmp_path / "case").mkdir(exist_ok=True)
        pydicom.dcmwrite(
            tmp_path / "case" / str(number), dataset, implicit_vr=implicit, little_endian=implicit, force_encoding=True
        )
    volume = the_one(tmp_path / "case").load()
    np.testing.assert_array_equal(volume.array[0, 2], expected_hu(2))
    files = write_series(volume, tmp_path / "out", Derivation("monai_sasm", "0"))
    assert the_one(files[0].parent).load().array.tobytes() == volume.array.tobytes()


def test_enhanced_multiframe_is_read(tmp_path: Path) -> None:
    heights = [STEP * number for number in (3, 0, 2, 1)]
    save(enhanced_ct(heights), tmp_path / "enhanced")
    entry = the_one(tmp_path)
    volume = entry.load()
    assert entry.geometry == "multiframe"
    for number in range(4):
        np.testing.assert_array_equal(volume.array[0, number], stored_values(number).astype(np.float32) - 1024)
    np.testing.assert_allclose(volume.affine @ [2, 0, 0, 1], [20, 30, 5, 1], atol=1e-9)


def test_enhanced_time_points_become_two_volumes(tmp_path: Path) -> None:
    save(enhanced_ct([0.0, STEP], time_points=2), tmp_path / "enhanced")
    means = sorted(float(entry.load().array.mean()) for entry in accepted(tmp_path))
    assert len(means) == 2
    assert means[1] - means[0] == pytest.approx(500, abs=1e-2)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"RescaleSlope": "0"}, "Rescale Slope"),
        ({"RescaleType": "US"}, "not Hounsfield"),
        ({"ImagePositionPatient": None}, "Image Position"),
        ({"PixelData": None}, "no pixel data"),
        ({"Rows": 4096, "Columns": 4096}, "truncated"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "orthogonal"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.128", "Modality": "PT"}, "Positron"),
        ({"Modality": "PT"}, "contradicts"),
    ],
)  # fmt: skip
def test_one_wrong_attribute_is_refused_with_its_reason(
    tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    save(ct_slice(0, **changes), tmp_path / "file")
    assert reason in str(the_one(tmp_path).refusal)


def test_a_compressed_bomb_is_refused_before_decoding(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", minversion="3", reason="pydicom 2 cannot compress, so the case cannot be built")
    dataset = ct_slice(0)
    dataset.file_meta = file_meta_of(dataset)
    dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    dataset.Rows = dataset.Columns = 60000
    save(dataset, tmp_path / "bomb")
    assert "bomb" in str(the_one(tmp_path).refusal)


def test_links_that_leave_the_folder_are_ignored(tmp_path: Path) -> None:
    outside = save(ct_slice(0), tmp_path / "outside" / "a")
    inside = save(ct_slice(1), tmp_path / "inside" / "b")
    try:
        os.symlink(outside, inside.parent / "link")
        os.symlink(outside.parent, inside.parent / "folder")
    except OSError:
        pytest.skip("this system has no symbolic links")
    assert the_one(inside.parent).paths == (inside,)


def test_copies_of_one_instance_count_once(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path / "a")
    save_all([ct_slice(number) for number in range(3)], tmp_path / "b")
    entry = the_one(tmp_path)
    assert len(entry.paths) == 3
    assert entry.notes == ("3 further copies of the same instances ignored",)


def patients(folder: Path, *told: tuple[str, str], **changes: object) -> None:
    """Three slices of each patient (ID, issuer), of one study and series, with the same places and pixels."""
    for number, (patient, issuer) in enumerate(told):
        who = {"PatientID": patient, "IssuerOfPatientID": issuer, **changes}
        save_all([ct_slice(one, **who) for one in range(3)], folder / str(number))


@pytest.mark.parametrize("other", [("P2", "A"), ("P1", "B")])
def test_patients_that_share_all_uids_are_kept_apart(tmp_path: Path, other: tuple[str, str]) -> None:
    """Not one volume of both, and what is derived of the one has no UID of what is derived of the other."""
    patients(tmp_path / "in", ("P1", "A"), other, StudyInstanceUID="")
    entries = accepted(tmp_path / "in")
    assert [len({path.parent for path in entry.paths}) for entry in entries] == [1, 1]
    assert [len(entry.paths) for entry in entries] == [3, 3]
    assert len({entry.name for entry in entries}) == 2
    assert all("kept apart by Patient ID" in entry.notes[0] for entry in entries)
    assert not any("P1" in note for entry in entries for note in entry.notes)
    derived = []
    for entry in entries:
        files = write_series(entry.load(), tmp_path / entry.name, Derivation("monai_sasm", "0"))
        headers = [read_header(file) for file in files]
        derived.append({uid for one in headers if one for uid in (one.study, one.series, one.sop_instance)})
    assert derived[0].isdisjoint(derived[1])


def test_slices_without_a_patient_are_of_the_only_one(tmp_path: Path) -> None:
    told = [("P1", "A"), ("P1", ""), ("", "")]
    slices = [ct_slice(one, PatientID=who, IssuerOfPatientID=issuer) for one, (who, issuer) in enumerate(told)]
    entry = the_one(save_all(slices, tmp_path))
    assert (len(entry.paths), entry.refusal, entry.notes) == (3, None, ())


def test_slices_of_nobody_among_those_of_two_patients(tmp_path: Path) -> None:
    patients(tmp_path, ("P1", ""), ("P2", ""), ("", ""))
    entry = the_one(tmp_path)
    assert entry.unreadable
    assert "some do not say which patient" in str(entry.refusal)


@pytest.mark.parametrize("attribute", ["EchoTime", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue"])
def test_images_of_one_instance_uid_and_place_are_no_copies(tmp_path: Path, attribute: str) -> None:
    slices = [
        mr_slice(10 * part + one, position=(0, 0, STEP * one), SOPInstanceUID=uid("one"), **{attribute: part + 1})
        for part in range(2)
        for one in range(3)
    ]
    entries = accepted(save_all(slices, tmp_path))
    assert [len(entry.paths) for entry in entries] == [3, 3]
    means = sorted(float(entry.load().array.mean()) for entry in entries)
    assert means[1] - means[0] == pytest.approx(200, abs=1)


def test_other_pixels_under_one_instance_uid_are_refused(tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(3)]
    changed = ct_slice(1)
    changed.PixelData = stored_values(9).tobytes()
    entries = index(save_all([*slices, changed], tmp_path))
    assert all(entry.refusal and entry.unreadable for entry in entries)
    assert sorted(len(entry.paths) for entry in entries) == [2, 2]
    assert any("leave only the right one there" in str(entry.refusal) for entry in entries)


def test_a_packed_copy_is_a_copy(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(3)], tmp_path / "a")
    packed = ct_slice(1)
    packed.file_meta = file_meta_of(packed)
    packed.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    save(packed, tmp_path / "b" / "packed")
    entry = the_one(tmp_path)
    assert (len(entry.paths), entry.notes) == (3, ("1 further copies of the same instances ignored",))


def test_a_truncated_slice_is_no_copy_of_another_place(tmp_path: Path) -> None:
    folder = save_all([ct_slice(number, SOPInstanceUID=uid("one")) for number in range(4)], tmp_path)
    last = folder / "f021"
    last.write_bytes(last.read_bytes()[:-500])
    entries = index(folder)
    assert all(entry.refusal and entry.unreadable for entry in entries)
    assert sorted(len(entry.paths) for entry in entries) == [1, 3]


def test_slices_that_share_one_instance_uid_are_no_copies(tmp_path: Path) -> None:
    """Some anonymisers give one UID to all; the result must not, or an archive would keep one of its slices."""
    folder = save_all([ct_slice(number, SOPInstanceUID=uid("one")) for number in range(4)], tmp_path / "a")
    save_all([ct_slice(2, SOPInstanceUID=uid("one"))], tmp_path / "b")
    entry = the_one(tmp_path)
    assert (len(entry.paths), entry.geometry) == (4, "regular")
    assert entry.notes == ("1 further copies of the same instances ignored",)
    files = write_series(the_one(folder).load(), tmp_path / "out", Derivation("monai_sasm", "0"))
    assert len({read_header(file).sop_instance for file in files}) == 4


def test_an_empty_modality_lut_is_none(tmp_path: Path) -> None:
    volume = the_one(save(ct_slice(1, ModalityLUTSequence=[]), tmp_path / "a")).load()
    np.testing.assert_array_equal(volume.array[0, 0], expected_hu(1))


@pytest.mark.parametrize("implicit", [True, False])
def test_a_transfer_syntax_that_lies_about_explicit_vr(tmp_path: Path, implicit: bool) -> None:
    """Each other reader finds out; the pixel data are not cut short."""
    pytest.importorskip("pydicom", minversion="3", reason="written with the pydicom 3 API")
    import pydicom

    dataset = ct_slice(1)
    dataset.file_meta = file_meta_of(dataset)
    del dataset.file_meta
    start = io.BytesIO()
    pydicom.dcmwrite(start, dataset, implicit_vr=implicit, little_endian=True)
    meta = io.BytesIO()
    said = file_meta_of(dataset)
    said.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian if implicit else pydicom.uid.ImplicitVRLittleEndian
    pydicom.filewriter.write_file_meta_info(meta, said)
    (tmp_path / "a").write_bytes(bytes(128) + b"DICM" + meta.getvalue() + start.getvalue())
    volume = the_one(tmp_path / "a").load()
    np.testing.assert_array_equal(volume.array[0, 0], expected_hu(1))
    files = write_series(volume, tmp_path / "out", Derivation("monai_sasm", "0"))
    assert the_one(files[0].parent).load().array.tobytes() == volume.array.tobytes()


def test_a_single_file_and_a_folder_without_dicom(tmp_path: Path) -> None:
    file = save(ct_slice(4, PixelSpacing=[0.5, 2.0]), tmp_path / "one")
    volume = the_one(file).load()
    assert volume.geometry == "single"
    np.testing.assert_allclose(np.abs(np.diag(volume.affine[:, [2, 1, 0]])), [2.0, 0.5, STEP], atol=1e-9)
    (tmp_path / "none").mkdir()
    assert index(tmp_path / "none") == []
    assert SPACING != (0.5, 2.0)
    assert volume.source.orientation == AXIAL


def test_damaged_rle_that_panics_in_its_decoder_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", minversion="3", reason="pydicom 2 cannot compress, so the case cannot be built")
    dataset = ct_slice(0)
    dataset.file_meta = file_meta_of(dataset)
    dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
    file = save(dataset, tmp_path / "rle")
    whole = bytearray(file.read_bytes())
    start = whole.rindex(b"\xfe\xff\x00\xe0") + 8 + 64  # behind the item tag and the RLE header
    whole[start : start + 400] = b"\x7f" * 400
    file.write_bytes(whole)
    with pytest.raises(RefusedError, match="cannot be decoded"):
        the_one(file).load()


def test_a_series_larger_than_the_memory_is_refused_before_allocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = the_one(save_all([ct_slice(number) for number in range(4)], tmp_path))
    monkeypatch.setattr("monai_sasm.io.memory.free_memory", lambda: 4 * 4 * SIZE * SIZE)
    with pytest.raises(RefusedError, match="of memory are free"):
        entry.load()


def test_entries_can_be_sent_to_another_process(tmp_path: Path) -> None:
    save_all([ct_slice(number) for number in range(2)], tmp_path)
    save(other_object("1.2.840.10008.5.1.4.1.1.88.22", "SR"), tmp_path / "report.dcm")
    series, report = (pickle.loads(pickle.dumps(entry)) for entry in index(tmp_path))
    assert series.load().array.shape == (1, 2, SIZE, SIZE)
    with pytest.raises(RefusedError, match="Enhanced SR"):
        report.load()
