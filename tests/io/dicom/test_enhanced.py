"""Enhanced multi-frame objects come back as such: frames in their order and place, with where each came from."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEGLSLossless

from monai_sasm.errors import RefusedError
from monai_sasm.io import formats
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.dicom import pixels
from monai_sasm.io.dicom.pixels import StoredPixels, read_stored
from monai_sasm.io.dicom.read import content_of
from monai_sasm.io.dicom.saving import mark_lossy
from tests.data import shared
from tests.io.dicom import validators
from tests.io.dicom.dicom_cases import STEP, enhanced_ct, file_meta_of, save, stored_values, uid

DERIVATION = Derivation("monai_sasm", "1.0", {"toy": "0" * 64})
HEIGHTS = [STEP * number for number in (3, 0, 2, 1)]  # frames are not in the order of their places


def test_frames_keep_order_place_and_values(tmp_path: Path) -> None:
    source = save(enhanced_ct(HEIGHTS), tmp_path / "in" / "enhanced")
    (entry,) = formats.inventory(tmp_path / "in")
    volume = entry.load()
    brighter = volume.with_array(volume.array + np.float32(2))
    (file,) = formats.write(brighter, formats.output_path(entry, tmp_path / "in", tmp_path / "out"), DERIVATION)
    assert file == tmp_path / "out" / entry.name / "IM0001.dcm"
    before, after = pydicom.dcmread(source), pydicom.dcmread(file)
    assert (after.SOPClassUID, after.NumberOfFrames) == (before.SOPClassUID, 4)
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SeriesInstanceUID != before.SeriesInstanceUID
    assert after.StudyInstanceUID == before.StudyInstanceUID
    assert after.ImageType[0] == "DERIVED"
    assert "DerivationDescription" not in after, "it is said of each frame"
    for number, height in enumerate(HEIGHTS):
        group = after.PerFrameFunctionalGroupsSequence[number]
        assert group.PlanePositionSequence[0].ImagePositionPatient[2] == height
        step = group.DerivationImageSequence[0]
        assert "toy" in step.DerivationDescription
        image = step.SourceImageSequence[0]
        assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == (before.SOPInstanceUID, number + 1)
        np.testing.assert_array_equal(after.pixel_array[number], before.pixel_array[number] + 2)
    evidence = after.SourceImageEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == before.SeriesInstanceUID
    (again,) = formats.inventory(tmp_path / "out")
    assert any("already derived" in note for note in again.notes)
    np.testing.assert_array_equal(again.load().affine, volume.affine)
    (twice,) = formats.write(brighter, tmp_path / "twice.dcm", DERIVATION)
    assert pydicom.dcmread(twice).SOPInstanceUID == after.SOPInstanceUID, "the same input gives the same object"


def test_each_time_point_is_an_object_of_its_own(tmp_path: Path) -> None:
    save(enhanced_ct([0.0, STEP], time_points=2), tmp_path / "in" / "enhanced")
    made = []
    for entry in formats.inventory(tmp_path / "in"):
        (file,) = formats.write(entry.load(), tmp_path / entry.name, DERIVATION)
        made.append(pydicom.dcmread(file))
    assert [one.NumberOfFrames for one in made] == [2, 2]
    assert made[0].SOPInstanceUID != made[1].SOPInstanceUID
    means = sorted(float(one.pixel_array.mean()) for one in made)
    assert means[1] - means[0] == pytest.approx(500, abs=1)


def test_uneven_frames_keep_their_places(tmp_path: Path) -> None:
    save(enhanced_ct([0.0, STEP, 3 * STEP, 4 * STEP]), tmp_path / "in" / "enhanced")
    (entry,) = formats.inventory(tmp_path / "in")
    assert (entry.geometry, entry.refusal) == ("gap", None)
    volume = entry.load()
    (file,) = formats.write(volume, tmp_path / "out", DERIVATION)
    places = [
        g.PlanePositionSequence[0].ImagePositionPatient[2]
        for g in pydicom.dcmread(file).PerFrameFunctionalGroupsSequence
    ]
    assert places == [0, STEP, 3 * STEP, 4 * STEP]
    np.testing.assert_array_equal(pydicom.dcmread(file).pixel_array[1], stored_values(1))
    with pytest.raises(RefusedError, match="uneven steps"):
        formats.write(volume, tmp_path / "out.nii.gz", DERIVATION)


@pytest.mark.parametrize(
    "folder", ["hyperfine__anatomical__001", "philips_enhanced__anatomical__001", "siemens_multiframe__anatomical__001"]
)
def test_real_objects_stay_as_valid_as_they_were(folder: str, tmp_path: Path) -> None:
    source = shared(f"dicom_odd/dicom2nifti/{folder}")
    (entry,) = [one for one in formats.inventory(source) if one.refusal is None]
    volume = entry.load()
    files = formats.write(volume, tmp_path / "out", DERIVATION)
    changed = formats.write(volume.with_array(volume.array + np.float32(50)), tmp_path / "changed", DERIVATION)
    assert validators.errors(changed) <= validators.errors(entry.paths)
    for old, new in zip(entry.paths, files, strict=True):
        before, after = pydicom.dcmread(old), pydicom.dcmread(new)
        np.testing.assert_array_equal(np.sort(after.pixel_array, axis=None), np.sort(before.pixel_array, axis=None))
    assert validators.errors(files) <= validators.errors(entry.paths)


def test_a_synthetic_object_gains_no_error(tmp_path: Path) -> None:
    source = save(enhanced_ct([0.0, STEP]), tmp_path / "in" / "enhanced")
    (entry,) = formats.inventory(source)
    (file,) = formats.write(entry.load(), tmp_path / "out", DERIVATION)
    assert validators.errors([file]) <= validators.errors([source])


def concatenated(number: int, total: int | None, folder: Path) -> Path:
    """One object of two frames of a concatenation."""
    dataset = enhanced_ct([STEP * (2 * number), STEP * (2 * number + 1)])
    dataset.SOPInstanceUID, dataset.InstanceNumber = uid("part", number), number + 1
    dataset.ConcatenationUID, dataset.SOPInstanceUIDOfConcatenationSource = uid("whole"), uid("source")
    dataset.InConcatenationNumber, dataset.ConcatenationFrameOffsetNumber = number + 1, 2 * number
    dataset.RepresentativeFrameNumber = 2
    if total is not None:
        dataset.InConcatenationTotalNumber = total
    return save(dataset, folder / f"{number}.dcm")


@pytest.mark.parametrize(
    ("numbers", "total", "lost"), [((0, 1, 2), 3, None), ((0, 1), 3, "1 of 3"), ((0, 2), None, "1 of 3")]
)
def test_parts_of_a_concatenation(numbers: list[int], total: int | None, lost: str | None, tmp_path: Path) -> None:
    for number in numbers:
        concatenated(number, total, tmp_path / "in")
    (entry,) = formats.inventory(tmp_path / "in")
    assert entry.refusal is None
    told = [note for note in entry.notes if "concatenation" in note]
    assert told == ([f"{lost} objects of a concatenation are missing, and their frames with them"] if lost else [])
    files = formats.write(entry.load(), tmp_path / "out", DERIVATION)
    assert len(files) == len(numbers)
    for file in files:
        assert not [name for name in pydicom.dcmread(file).dir() if "Concatenation" in name or "Representative" in name]


def test_what_all_frames_shared_of_their_derivation_is_said_by_each(tmp_path: Path) -> None:
    dataset, step = enhanced_ct([0.0, STEP]), Dataset()
    step.DerivationDescription = "averaged"
    dataset.SharedFunctionalGroupsSequence[0].DerivationImageSequence = [step]
    save(dataset, tmp_path / "in" / "enhanced")
    volume = formats.inventory(tmp_path / "in")[0].load()
    (file,) = formats.write(volume.with_array(volume.array + np.float32(2)), tmp_path / "out", DERIVATION)
    new = pydicom.dcmread(file)
    assert "DerivationImageSequence" not in new.SharedFunctionalGroupsSequence[0]
    for group in new.PerFrameFunctionalGroupsSequence:
        first, second = group.DerivationImageSequence
        assert first.DerivationDescription == "averaged"
        assert "toy" in second.DerivationDescription
    (file,) = formats.write(volume, tmp_path / "copy", DERIVATION)
    assert pydicom.dcmread(file).SharedFunctionalGroupsSequence[0].DerivationImageSequence == [step]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], ["DERIVED", "PRIMARY", "VOLUME", "NONE"]),
        ("ORIGINAL", ["DERIVED", "PRIMARY"]),
        (None, ["DERIVED", "PRIMARY"]),
    ],
)
def test_frame_type_says_derived(before: object, after: list[str], tmp_path: Path) -> None:
    dataset, kind = enhanced_ct([0.0, STEP]), Dataset()
    if before is not None:
        kind.FrameType = before
    dataset.SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence = [kind]
    save(dataset, tmp_path / "in" / "enhanced")
    (file,) = formats.write(formats.inventory(tmp_path / "in")[0].load(), tmp_path / "out", DERIVATION)
    said = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0].FrameType
    assert list(said) == after


def test_a_file_is_decoded_once_whose_frames_lie_between_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heights = [STEP * number for number in range(6)]
    for part in (0, 1):
        dataset = enhanced_ct(heights[part::2])
        dataset.SOPInstanceUID, dataset.ConcatenationUID = uid("part", part), uid("whole")
        save(dataset, tmp_path / "in" / f"{part}.dcm")
    decoded: list[str] = []

    def counting(path: Path) -> tuple[Dataset, StoredPixels]:
        decoded.append(path.name)
        return read_stored(path)

    monkeypatch.setattr("monai_sasm.io.dicom.read.read_stored", counting)
    (entry,) = formats.inventory(tmp_path / "in")
    volume = entry.load()
    assert sorted(decoded) == ["0.dcm", "1.dcm"]
    for number, height in enumerate(heights):
        np.testing.assert_array_equal(volume.array[0, number], stored_values(round(height / STEP)) - 1024)
    assert volume.source.contents[0] == content_of(read_stored(tmp_path / "in" / "0.dcm")[1], 0)
    assert volume.source.contents[5] == content_of(read_stored(tmp_path / "in" / "1.dcm")[1], 2)


def test_compressed_time_points_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = enhanced_ct([0.0, STEP], time_points=3)
    plain = save(dataset, tmp_path / "plain" / "enhanced")
    dataset.file_meta = file_meta_of(dataset)
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    frames = pydicom.dcmread(plain).pixel_array.astype(np.uint16)
    dataset.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(frame)) for frame in frames])
    path = save(dataset, tmp_path / "in" / "enhanced")
    decoded: list[Path] = []
    monkeypatch.setattr(pixels, "_refuse_cut_frames", lambda dataset: decoded.append(path))
    wanted = [entry.load().array for entry in formats.inventory(tmp_path / "plain")]
    for entry, array in zip(formats.inventory(tmp_path / "in"), wanted, strict=True):
        volume = entry.load()
        np.testing.assert_array_equal(volume.array, array)
        formats.write(volume, tmp_path / entry.name, DERIVATION)
    assert len(decoded) == 1, "for three time points, each read, compared and written"
    with pytest.raises(ValueError, match="read-only"):
        read_stored(path)[1].values[0] = 0
    dataset.PixelData = encapsulate([bytes(imagecodecs.jpegls_encode(frame + 1)) for frame in frames])
    np.testing.assert_array_equal(read_stored(save(dataset, path))[1].values, frames.astype(np.int32) + 1)
    assert len(decoded) == 2
    read_stored(plain)
    assert not pixels._kept, "another folder"
    monkeypatch.setattr(pixels, "free_memory", lambda: 8 * 5 * frames.size - 1)
    read_stored(path)
    assert not pixels._kept, "too large"


def test_the_ratio_of_a_lossy_source_counts_all_frames() -> None:
    dataset = enhanced_ct([0.0, STEP, 2 * STEP, 3 * STEP])
    dataset.file_meta = file_meta_of(dataset)
    dataset.file_meta.TransferSyntaxUID = JPEG2000
    mark_lossy(dataset, len(dataset.PixelData) // 10)
    assert float(dataset.LossyImageCompressionRatio) == pytest.approx(10, abs=0.01)
