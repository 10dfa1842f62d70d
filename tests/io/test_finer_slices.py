"""Thin slices on disk: extent, positions, thickness, count and references are right, and validators accept them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.finer_slices import finer_slices
from monai_sasm.io.formats import write
from monai_sasm.io.nifti.read import read
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import STEP, ct_slice, index, mr_slice, save_all, tilted

DERIVATION = Derivation("monai_sasm", "0.1.0", {"superres": "ab" * 32}, {"factor": 3}, "Through-plane super-resolution")
OBLIQUE = np.array([[0.8, 0.1, 0.0, -20.0], [0.0, 0.7, -1.5, 5.0], [0.1, 0.2, 6.0, 30.0], [0, 0, 0, 1]])


def repeated(volume: Volume, factor: int) -> Volume:
    """Each slice ``factor`` times: the same image on a finer grid."""
    axis = volume.slice_axis
    assert axis is not None
    return finer_slices(volume, np.repeat(volume.array, factor, axis=axis + 1))


@pytest.fixture
def series(tmp_path: Path) -> Volume:
    """Four MR slices 2.5 mm apart with the attributes that depend on the place of a slice."""
    slices = [
        mr_slice(number, SliceLocation=f"{STEP * number}", ImagesInAcquisition=4, SpacingBetweenSlices=f"{STEP}")
        for number in range(4)
    ]
    (entry,) = index(save_all(slices, tmp_path / "source"))
    return entry.load()


def test_first_and_last_face_of_the_stack_stay(series: Volume) -> None:
    thin = repeated(series, 5)
    assert series.affine is not None
    assert thin.affine is not None
    assert thin.array.shape == (1, 20, 64, 64)
    for old, new in ((-0.5, -0.5), (3.5, 19.5), (0, 2), (1, 7)):
        np.testing.assert_allclose(thin.affine @ [new, 3, 4, 1], series.affine @ [old, 3, 4, 1], atol=1e-9)
    np.testing.assert_allclose(thin.affine[:, 1:3], series.affine[:, 1:3])
    assert thin.notes[-1] == "4 slices at steps of 2.5 mm became 20 of 0.5 mm"


def test_gaps_between_slices_are_told(tmp_path: Path) -> None:
    for thickness, gaps in ((STEP, False), (2.0, True)):
        slices = [mr_slice(number, SliceThickness=f"{thickness}") for number in range(4)]
        (entry,) = index(save_all(slices, tmp_path / f"{thickness}"))
        notes = " ".join(repeated(entry.load(), 5).notes)
        assert ("acquired slices are 2 mm thick: what lies in the gaps between them is a guess" in notes) == gaps


def test_a_dicom_series_gets_positions_thickness_and_count(series: Volume, tmp_path: Path) -> None:
    thin = repeated(series, 5)
    files = write(thin, tmp_path / "out", DERIVATION)
    written = [pydicom.dcmread(path) for path in files]
    assert len(written) == 20
    for number, dataset in enumerate(written):
        z = -STEP / 2 + 0.25 + 0.5 * number
        np.testing.assert_allclose([float(part) for part in dataset.ImagePositionPatient], [-20, -30, z], atol=1e-9)
        assert (float(dataset.SliceThickness), float(dataset.SpacingBetweenSlices)) == (0.5, 0.5)
        assert float(dataset.SliceLocation) == pytest.approx(z)
        assert (dataset.InstanceNumber, dataset.ImagesInAcquisition) == (number + 1, 20)
        assert dataset.ImageType[0] == "DERIVED"
        assert dataset.DerivationCodeSequence[-1].CodeMeaning == "Spatial resampling"
        assert {item.SpatialLocationsPreserved for item in dataset.SourceImageSequence} == {"NO"}
    assert len({dataset.SOPInstanceUID for dataset in written}) == 20
    assert len({dataset.SeriesInstanceUID for dataset in written}) == 1
    assert written[0].SeriesInstanceUID != pydicom.dcmread(series.source.paths[0]).SeriesInstanceUID


def test_a_thin_slice_names_the_slices_it_lies_between(series: Volume, tmp_path: Path) -> None:
    written = [pydicom.dcmread(path) for path in write(repeated(series, 5), tmp_path / "out", DERIVATION)]
    sources = series.source.instances
    named = [[item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence] for dataset in written]
    assert named[0] == [sources[0]], "before the first centre there is one neighbour"
    assert named[2] == [sources[0]], "on a centre there is one source"
    assert named[3] == [sources[0], sources[1]]
    assert named[19] == [sources[3]]
    (listed,) = written[3].ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in listed.ReferencedInstanceSequence] == named[3]


def test_a_written_series_is_read_back_on_the_same_grid(series: Volume, tmp_path: Path) -> None:
    thin = repeated(series, 3)
    write(thin, tmp_path / "out", DERIVATION)
    (entry,) = index(tmp_path / "out")
    again = entry.load()
    assert again.geometry == "regular"
    np.testing.assert_array_equal(again.array, thin.array)
    np.testing.assert_allclose(again.affine, thin.affine, atol=1e-6)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_validators_accept_the_series(series: Volume, tmp_path: Path) -> None:
    files = write(repeated(series, 2), tmp_path / "out", DERIVATION)
    checks = [["dciodvfy", "-new", str(path)] for path in files]
    checks += [["dcentvfy", *map(str, files)]] if shutil.which("dcentvfy") else []
    for command in checks:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Error" not in result.stderr + result.stdout, result.stderr


def test_a_nifti_file_gets_both_transforms_and_keeps_the_rest(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 900, (6, 7, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(array, OBLIQUE)  # type: ignore[attr-defined]
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"FLAIR"
    image.set_sform(OBLIQUE, 1)
    image.set_qform(np.diag([0.8, 0.7, 6.0, 1.0]), 2, strip_shears=False)
    image.header["slice_code"], image.header["slice_end"] = 3, 3
    nibabel.save(image, tmp_path / "thick.nii.gz")  # type: ignore[attr-defined]
    volume = read(tmp_path / "thick.nii.gz", Modality.MR)
    thin = repeated(volume, 4)
    write(thin, tmp_path / "thin.nii.gz", DERIVATION)
    again = nibabel.load(tmp_path / "thin.nii.gz")  # type: ignore[attr-defined]
    assert again.shape == (6, 7, 16)
    np.testing.assert_array_equal(np.asarray(again.dataobj), np.repeat(array, 4, axis=2))
    for matrix in (again.header.get_sform(), thin.affine):
        np.testing.assert_allclose(matrix @ [1, 2, -0.5, 1], OBLIQUE @ [1, 2, -0.5, 1], atol=1e-4)
        np.testing.assert_allclose(matrix @ [1, 2, 15.5, 1], OBLIQUE @ [1, 2, 3.5, 1], atol=1e-4)
    np.testing.assert_allclose(again.header.get_qform() @ [0, 0, 15.5, 1], [0, 0, 21, 1], atol=1e-4)
    assert (int(again.header["sform_code"]), int(again.header["qform_code"])) == (1, 2)
    assert again.header.get_zooms()[2] == pytest.approx(1.5)
    assert again.header["descrip"].item() == b"FLAIR"
    assert int(again.header["slice_code"]) == int(again.header["slice_end"]) == 0


def test_stacks_without_equal_steps_are_refused(tmp_path: Path) -> None:
    single = save_all([ct_slice(0)], tmp_path / "single")
    leaning = save_all([tilted(number) for number in range(3)], tmp_path / "tilted")
    gap = save_all([mr_slice(number) for number in (0, 1, 2, 4)], tmp_path / "gap")
    for folder, message in ((single, "one slice"), (leaning, "these are tilted"), (gap, "these are gap")):
        (entry,) = index(folder)
        volume = entry.load()
        with pytest.raises(RefusedError, match=message):
            repeated(volume, 2)


def test_only_the_slice_axis_may_change(series: Volume) -> None:
    with pytest.raises(ValueError, match="only the slice axis 0"):
        finer_slices(series, np.zeros((1, 8, 64, 32), np.float32))
    with pytest.raises(ValueError, match="at least the 4 acquired"):
        finer_slices(series, np.zeros((1, 3, 64, 64), np.float32))
