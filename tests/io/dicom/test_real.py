"""Real and odd DICOM files: each is read right or refused with a reason, and never anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from monai_sasm.errors import RefusedError
from monai_sasm.io.entry import Entry
from tests.data import DATA
from tests.io.dicom.dicom_cases import index

ODD = DATA / "dicom_odd"
BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"

needs_data = pytest.mark.skipif(not ODD.is_dir(), reason=f"no real data at {DATA}; set SASM_DATA")

REFUSED = {  # file -> a word of the reason; everything else below dicom_odd must be read
    "dcm_qa_ct/S1000_I10": "localizer",
    "dcm_qa_ct/S4010_RGB_I40": "RGB",
    "pydicom-data/HTJ2K_08_RGB.dcm": "RGB",
    "pydicom-data/JLSL_16_15_1_1F.dcm": "Secondary Capture",
    "pydicom-data/JLSL_RGB_ILV0.dcm": "RGB",
    "pydicom-data/JLSN_RGB_ILV0.dcm": "RGB",
    "pydicom-data/JPEG-LL.dcm": "Secondary Capture",
    "pydicom-data/OBXXXX1A_rle_2frame.dcm": "Ultrasound",
    "pydicom-data/OT-PAL-8-face.dcm": "PALETTE",
    "pydicom-data/RG3_J2KI.dcm": "Computed Radiography",
    "pydicom-data/SC_rgb.dcm": "RGB",
    "pydicom-data/SC_rgb_expb_16bit.dcm": "RGB",
    "pydicom-data/SC_ybr_full_uncompressed.dcm": "YBR",
    "pydicom-data/US1_J2KR.dcm": "Ultrasound",
    "pydicom-data/color-pl.dcm": "Ultrasound",
    "pydicom-data/eCT_Supplemental.dcm": "a parameter map",
    "pydicom-data/emri_small.dcm": "functional groups",
    "pydicom-data/emri_small_RLE.dcm": "functional groups",
    "pydicom-data/emri_small_big_endian.dcm": "functional groups",
    "pydicom-data/emri_small_jpeg_2k_lossless.dcm": "functional groups",
    "pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm": "truncated",
    "pydicom-data/emri_small_jpeg_ls_lossless.dcm": "functional groups",
    "pydicom-data/liver.dcm": "Segmentation",
    "pydicom-data/liver_deflate.dcm": "Segmentation",
    "pydicom-data/liver_expb.dcm": "Segmentation",
    "pydicom-data/liver_rle.dcm": "Segmentation",
    "pydicom-data/mlut_18.dcm": "Secondary Capture",
    "pydicom-data/parametric_map_float.dcm": "Parametric Map",
    "pydicom-data/vlut_04.dcm": "Secondary Capture",
    "pylibjpeg-data/JPEG2000Lossless__TOSHIBA_J2K_SIZ1_PixRep0.dcm": "codestream is signed",
    "pylibjpeg-data/JPEG2000__MAROTECH_CT_JP2Lossy.dcm": "localizer",
    "pylibjpeg-data/JPEG2000__OsirixFake16BitsStoredFakeSpacing.dcm": "Secondary Capture",
    "pylibjpeg-data/JPEGBaseline__SC_rgb_small_odd_jpeg.dcm": "YBR",
    "pylibjpeg-data/JPEGExtended__JPEGExtended_1s_1f_u_16_12.dcm": "Secondary Capture",
    "pylibjpeg-data/JPEGLossless__JPEGLossless_1s_1f_i_16_16_bad.dcm": "no Hounsfield units",
    "pylibjpeg-data/LittleEndianImplicit__rtdose.dcm": "RT Dose",
}
SERIES = {  # folder below dicom_odd/dicom2nifti -> (geometry, slices) of each volume in it
    "failing__gantrytilting__001": [("tilted", 4)],
    "failing__slicecount__001": [("regular", 2)],
    "failing__sliceorientation__001": [("regular", 2), ("regular", 2)],
    "generic__anatomical__002_non_isotropic": [("regular", 4)],
    "generic__compressed_j2k__001": [("regular", 4)],
    "generic__compressed_jpeg__001": [("regular", 4)],
    "generic__compressed_jpegls__001": [("regular", 4)],
    "generic__compressed_rle__001": [("regular", 4)],
    "generic__rgb__001": [],
    "hyperfine__anatomical__001": [("multiframe", 8)],
    "philips_enhanced__anatomical__001": [("multiframe", 8)],
    "siemens_multiframe__anatomical__001": [("multiframe", 8)],
}


def outcome(entry: Entry) -> str:
    """``""`` for a volume with sound pixels, else the reason of the refusal; any other exception fails the test."""
    if entry.refusal:
        with pytest.raises(RefusedError):
            entry.load()
        return entry.refusal
    try:
        volume = entry.load()
    except RefusedError as refusal:
        return str(refusal)
    assert np.isfinite(volume.array).all()
    assert volume.array.ndim == 4
    assert volume.slice_axis == 0
    assert np.linalg.matrix_rank(volume.affine) == 4
    return ""


def odd_files() -> list[Path]:
    folders = (ODD / "pydicom-data", ODD / "pylibjpeg-data", ODD / "dcm_qa_ct")
    return [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]


@needs_data
@pytest.mark.parametrize("file", odd_files(), ids=lambda file: file.name)
def test_every_odd_file_is_right_or_refused_for_its_reason(file: Path) -> None:
    (entry,) = index(file)
    assert "patient" not in entry.name.lower()
    expected = REFUSED.get(file.relative_to(ODD).as_posix(), "")
    reason = outcome(entry)
    assert expected in reason
    assert bool(expected) == bool(reason), reason


@needs_data
@pytest.mark.parametrize("folder", sorted(SERIES))
def test_every_odd_series_is_right_or_refused(folder: str) -> None:
    entries = index(ODD / "dicom2nifti" / folder)
    read = [entry for entry in entries if not outcome(entry)]
    assert [(entry.geometry, entry.load().array.shape[1]) for entry in read] == SERIES[folder]
    assert all("RGB" in str(entry.refusal) for entry in entries if entry not in read)


@needs_data
@pytest.mark.parametrize("coding", ["jpeg", "jpegls", "rle"])
def test_codings_of_the_same_series_give_the_same_pixels(coding: str) -> None:
    (reference,) = index(ODD / "dicom2nifti" / "generic__compressed_j2k__001")
    (other,) = index(ODD / "dicom2nifti" / f"generic__compressed_{coding}__001")
    np.testing.assert_array_equal(other.load().array, reference.load().array)


@needs_data
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("pylibjpeg-data/JPEG2000Lossless__TOSHIBA_J2K_SIZ0_PixRep1.dcm", -2048, 1717),
        ("pylibjpeg-data/JPEG2000Lossless__J2K_pixelrep_mismatch.dcm", -2000, 1896),
        ("pydicom-data/693_UNCR.dcm", -3024, 1468),
    ],
)
def test_pixel_representation_traps(name: str, low: float, high: float) -> None:
    (entry,) = index(ODD / name)
    array = entry.load().array
    assert (array.min(), array.max()) == (low, high)


@needs_data
def test_the_whole_odd_folder_at_once() -> None:
    entries = index(ODD)
    assert len({entry.name for entry in entries}) == len(entries)
    assert len([entry for entry in entries if not outcome(entry)]) >= 20


def test_the_files_that_come_with_pydicom() -> None:
    entries = index(BUNDLED)
    reasons = {file: reason for entry in entries for reason in [outcome(entry)] for file in entry.paths}
    read = {file.name for file, reason in reasons.items() if not reason}
    assert {"CT_small.dcm", "17106", "3353"} <= read
    by_name = {file.name: reason for file, reason in reasons.items()}
    assert "RT Plan" in by_name["rtplan.dcm"]
    assert "RT Structure" in by_name["rtstruct.dcm"]
    assert "Segmentation" in by_name["liver_1frame.dcm"]
    assert "no pixel data" in by_name["IM000000"]
    small = next(entry for entry in entries if any(file.name == "CT_small.dcm" for file in entry.paths)).load()
    truth = pydicom.dcmread(BUNDLED / "CT_small.dcm")
    np.testing.assert_array_equal(small.array[0, 0], truth.pixel_array.astype(np.float32) - 1024)


def test_truncated_bundled_file_is_refused() -> None:
    (entry,) = index(BUNDLED / "MR_truncated.dcm")
    assert "truncated" in str(entry.refusal)


@needs_data
def test_geometry_agrees_with_an_independent_reader() -> None:
    import SimpleITK

    folder = DATA / "mri" / "tumour_PGBM-003_dicom" / "FLAIR"
    (entry,) = index(folder)
    volume = entry.load()
    image = SimpleITK.ReadImage(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(volume.array[0], SimpleITK.GetArrayFromImage(image).astype(np.float32))
    for index_xyz in [(0, 0, 0), (100, 7, 3), (279, 319, 21)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index_xyz))
        ours = (volume.affine @ [*index_xyz[::-1], 1])[:3]
        np.testing.assert_allclose(ours, lps * [-1, -1, 1], atol=1e-3)


@needs_data
def test_tilted_head_with_variable_spacing() -> None:
    (entry,) = index(DATA / "ct_volumes" / "ge_head_tilt_varspacing")
    volume = entry.load()
    assert volume.geometry == "irregular"
    assert any("sheared by 18.5 degrees" in note for note in volume.notes)
    steps = np.linalg.norm(np.diff(volume.source.positions, axis=0), axis=1)
    assert steps.min() == pytest.approx(1.14, abs=0.01)
    assert steps.max() == pytest.approx(7.38, abs=0.01)
