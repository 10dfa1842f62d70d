"""What headers, sidecars, names and values say that pixels are: phase, maps, labels and mosaics are no images."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from monai_sasm.errors import NotAnImageError, RefusedError
from monai_sasm.io import meaning
from monai_sasm.io.formats import inventory, open_images
from monai_sasm.io.nifti import names
from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

PHASE, MAP, SUBTRACTION = "phase", "a parameter map", "a subtraction"
REAL, IMAGINARY = "the real part of a complex image", "the imaginary part of a complex image"
MR_TYPES = {
    r"ORIGINAL\PRIMARY\M\ND\NORM": None,
    r"ORIGINAL\PRIMARY\M_SE\M\SE": None,
    r"ORIGINAL\PRIMARY\M_FFE\M\FFE": None,
    r"ORIGINAL\PRIMARY\T1\NONE": None,  # as third value the weighting
    r"ORIGINAL\PRIMARY\T2_STAR\NONE": None,
    r"ORIGINAL\PRIMARY\PERFUSION\NONE": None,  # the technique
    r"ORIGINAL\PRIMARY\OTHER": None,
    r"ORIGINAL\PRIMARY": None,
    r"DERIVED\SECONDARY\MPR\CSA MPR\\CSAPARALLEL": None,
    r"DERIVED\PRIMARY\DIFFUSION\TRACEW\ND": None,  # a mean of magnitudes
    r"DERIVED\SECONDARY\REFORMATTED\AVERAGE": None,
    r"ORIGINAL\PRIMARY\P\ND": PHASE,
    r"ORIGINAL\PRIMARY\M\P": PHASE,
    r"ORIGINAL\PRIMARY\P_FFE\P\FFE": PHASE,
    r"ORIGINAL\PRIMARY\PHASE MAP\P\FFE": PHASE,
    r"DERIVED\PRIMARY\VELOCITY MAP\P\PCA": PHASE,
    r"ORIGINAL\PRIMARY\R_FFE\R\FFE": REAL,
    r"ORIGINAL\PRIMARY\REAL": REAL,
    r"ORIGINAL\PRIMARY\I_IR\I\IR": IMAGINARY,
    r"ORIGINAL\PRIMARY\T1 MAP\T1\UNSPECIFIED": MAP,
    r"DERIVED\PRIMARY\M\ND\T2_STAR MAP": MAP,
    r"ORIGINAL\PRIMARY\B0 MAP\B0\UNSPECIFIED": MAP,
    r"DERIVED\PRIMARY\VOLUME\T2": MAP,  # as fourth value of Enhanced MR
    r"DERIVED\PRIMARY\DIFFUSION\ADC\ND\NORM": MAP,
    r"DERIVED\PRIMARY\DIFFUSION\FA": MAP,
    r"DERIVED\SECONDARY\PROCESSED": MAP,
    r"DERIVED\PRIMARY\PERFUSION\RELCBV": MAP,
    r"DERIVED\PRIMARY\PERFUSION_ASL\CBF": MAP,
    r"DERIVED\PRIMARY\M\ND\UNI": MAP,  # MP2RAGE
    r"DERIVED\PRIMARY\M\ND\UNI-DEN": MAP,
    r"DERIVED\PRIMARY\M\SUB\NORM": SUBTRACTION,
    r"ORIGINAL\PRIMARY\M\ND\MOSAIC": meaning.MOSAIC,
    r"ORIGINAL\PRIMARY\M\VFRAME": meaning.MOSAIC,
}
CT_TYPES = {
    r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI": None,
    r"DERIVED\PRIMARY\VOLUME\VMI": None,  # virtual monoenergetic images are in HU
    r"DERIVED\SECONDARY\REFORMATTED\AVERAGE": None,
    r"ORIGINAL\PRIMARY\VOLUME\EFF_ATOMIC_NUM": MAP,
    r"DERIVED\PRIMARY\VOLUME\MAT_SPECIFIC": MAP,
    r"DERIVED\SECONDARY\AXIAL\IODINE": MAP,
    r"DERIVED\SECONDARY\AXIAL\CBF": MAP,
    r"DERIVED\SECONDARY\SUBTRACTION": SUBTRACTION,
}


@pytest.mark.parametrize(("types", "what"), MR_TYPES.items())
def test_any_value_of_image_type_may_tell(types: str, what: str | None) -> None:
    assert meaning.by_image_type(types.split("\\"), Modality.MR) == what


@pytest.mark.parametrize(("types", "what"), CT_TYPES.items())
def test_image_types_of_ct(types: str, what: str | None) -> None:
    assert meaning.by_image_type(types.split("\\"), Modality.CT) == what


@pytest.mark.parametrize(
    ("types", "technique", "text", "by"),
    [
        (r"DERIVED\SECONDARY\REFORMATTED\AVERAGE", "", "", "Image Type"),
        (r"DERIVED\SECONDARY\REFORMATTED\MIP", "", "", "Image Type"),
        (r"DERIVED\PRIMARY\MPR\CT_SOM5 MIP THIN", "", "", "Image Type"),
        (r"DERIVED\PRIMARY\PROJECTION IMAGE\MIN_IP", "", "", "Image Type"),
        (r"DERIVED\PRIMARY\VOLUME\MAXIMUM", "", "", "Image Type"),  # Enhanced CT
        (r"DERIVED\PRIMARY\VOLUME\NONE", "MAX_IP", "", "Image Type"),
        (r"DERIVED\SECONDARY\AXIAL", "", "Thorax MIP 10/2", "description"),
        (r"DERIVED\SECONDARY", "", "SWI_minIP", "description"),
        (r"DERIVED\SECONDARY", "", "average intensity projection", "description"),
        (r"ORIGINAL\PRIMARY\AXIAL\CT_SOM5 SPI", "", "Angio 0.75 MIP", None),  # slices to make one from
        (r"DERIVED\SECONDARY\AXIAL", "", "thin slices for MIP", None),
        (r"DERIVED\SECONDARY\MPR", "MPR", "coronal 3.0", None),
        (r"ORIGINAL\PRIMARY\M\ND\NORM", "NONE", "mprage", None),
        ("", "", "MIP", None),
    ],
)
def test_projections_get_a_note(types: str, technique: str, text: str, by: str | None) -> None:
    note = meaning.projection_note(types.split("\\"), technique, text)
    assert (note is None) is (by is None)
    assert note is None or f"by its {by}: its noise is not that of a slice" in note


def test_components_and_units() -> None:
    told = {name: meaning.by_component(name) for name in ("MAGNITUDE", "MIXED", "", "PHASE", "REAL", "IMAGINARY")}
    assert told == {
        "MAGNITUDE": None, "MIXED": None, "": None, "PHASE": PHASE, "REAL": REAL, "IMAGINARY": IMAGINARY,
    }  # fmt: skip
    assert [meaning.by_unit(unit) for unit in ("1", "no units", "[hnsf'U]", "arbitrary", "")] == [None] * 5
    assert [meaning.by_unit(unit) for unit in ("um2/s", "mm2/s", "ms", "Hz", "%", "mg/cm3")] == [MAP] * 6
    assert meaning.by_unit("rad") == PHASE


@pytest.mark.parametrize(
    ("text", "derived", "what"),
    [
        ("relative phase map", False, PHASE),
        ("Apparent Diffusion Coefficient (mm2/s)", True, MAP),
        ("Apparent Diffusion Coefficient (mm2/s)", False, MAP),
        ("ep2d_diff_ADC", True, MAP),
        ("t1_fl3d_FA5", False, None),  # a flip angle
        ("t1_fl3d_FA", False, None),
        ("DTI_FA", True, MAP),
        ("T1_map", True, MAP),
        ("mp2rage_UNI_Images", False, MAP),
        ("t1_mp2rage_sag_p3_iso_UNI-DEN", False, MAP),
        ("t1_mp2rage_sag_p3_iso_INV2", False, None),
        ("gre_field_mapping", False, None),  # its magnitude has the same name
        ("Abdomen arterial phase", False, None),
        ("Arterial phase images 1.0", False, None),
        ("LAVA_in-phase image", False, None),
        ("t1 opposed phase images", False, None),
        ("CTA 75% phase images", False, None),
        ("SWI phase images", False, PHASE),
        ("portal venous phase, subtraction", True, SUBTRACTION),
        ("Iodine map", False, MAP),
        ("Thorax lung 1.0", True, None),
    ],
)
def test_descriptions_tell_where_nothing_else_does(text: str, derived: bool, what: str | None) -> None:
    assert meaning.by_text(text, derived) == what


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("sub-1_T1w", None), ("sub-1_part-mag_bold", None), ("ct", None), ("brain", None), ("BraTS_0001_t1ce", None),
        ("sub-1_desc-denoised_T1w", None), ("sub-1_sbref", None), ("mapping", None),
        ("sub-1_part-phase_bold", PHASE), ("sub-1_phasediff", PHASE), ("sub-1_phase1", PHASE), ("gre_e2_ph", PHASE),
        ("sub-1_part-real_MESE", REAL), ("sub-1_part-imag_MESE", IMAGINARY), ("scan_imaginary", IMAGINARY),
        ("sub-1_T1map", MAP), ("sub-1_TB1map", MAP), ("sub-1_UNIT1", MAP), ("sub-1_fieldmap", MAP), ("dwi_ADC", MAP),
        ("dti_FA", MAP), ("sub-1_cbf", MAP), ("FA", MAP),
        ("mp2rage_UNI", MAP), ("t1_mp2rage_UNI_Images", MAP), ("x_UNI-DEN", MAP), ("sub-1_inv-2_MP2RAGE", None),
        ("sub-1_dseg", meaning.LABELS), ("BraTS_0001_seg", meaning.LABELS), ("BraTS-GLI-0001-seg", meaning.LABELS),
        ("x_label", meaning.LABELS), ("aparc+aseg", meaning.LABELS), ("aseg", meaning.LABELS), ("mask", meaning.LABELS),
        ("sub-1_space-T1w_desc-brain_mask", meaning.LABELS), ("sub-1_probseg", meaning.LABELS),
        ("liver_segmentation", meaning.LABELS),
    ],
)  # fmt: skip
def test_names_tell(name: str, what: str | None) -> None:
    assert names.meaning(Path("images", f"{name}.nii.gz")) == what


@pytest.mark.parametrize("folder", ["labelsTr", "labelsTs", "labels", "masks", "gt_segmentations"])
def test_folders_of_labels_tell(folder: str) -> None:
    assert names.meaning(Path(folder, "hippocampus_001.nii.gz")) == meaning.LABELS
    assert names.meaning(Path("imagesTr", "hippocampus_001.nii.gz")) is None


def head(size: int = 64, slices: int = 6) -> NDArray[np.float32]:
    """Magnitude of a head: a bright ellipse in Rayleigh noise."""
    rng, (row, column) = np.random.default_rng(0), np.mgrid[:size, :size] / size - 0.5
    inside = (np.hypot(row * 1.2, column) < 0.35)[..., None] * (400 + 200 * np.cos(9 * row + 5 * column))[..., None]
    noise = rng.normal(0, 15, (2, size, size, slices))
    return np.hypot(inside + noise[0], noise[1]).astype(np.float32)


def body(size: int = 64, slices: int = 6) -> NDArray[np.float32]:
    """HU of a body in air."""
    rng, (row, column) = np.random.default_rng(0), np.mgrid[:size, :size] / size - 0.5
    radius = np.hypot(row * 1.2, column)
    values = np.where(radius < 0.35, np.where(radius < 0.3, 40.0, -100.0), -1000.0)
    values[np.hypot(row, column - 0.1) < 0.05] = 900
    return (values[..., None] + rng.normal(0, 20, (size, size, slices))).astype(np.float32).clip(-1024, 3071)


def atlas(labels: int, size: int = 64, slices: int = 6) -> NDArray[np.float32]:
    """Patches of whole numbers that are not consecutive, in a background of 0."""
    row, column = np.mgrid[:size, :size] // 4
    numbers = (row * 16 + column) % (labels - 1) * 7 + 1000
    numbers[np.hypot(row - 8, column - 8) > 7.5] = 0
    return np.repeat(numbers[..., None], slices, 2).astype(np.float32)


def padded(values: NDArray[np.float32], padding: float) -> NDArray[np.float32]:
    result = values.copy()
    result[:12] = padding
    return result


def phase(low: float, high: float) -> NDArray[np.float32]:
    """Noise outside, a wrapped ramp inside."""
    angle = np.random.default_rng(0).uniform(0, 1, (64, 64, 6))
    angle[16:48, 16:48] = (np.mgrid[:32, :32][0] / 10 % 1)[..., None]
    return (low + (high - low) * angle).astype(np.float32)


def noisy(clean: NDArray[np.floating], sigma: float) -> NDArray[np.float32]:
    """A magnitude: Rician noise."""
    real, imaginary = sigma * np.random.default_rng(2).standard_normal((2, *clean.shape))
    return np.hypot(clean + real, imaginary).astype(np.float32)


def rim(inside: NDArray[np.floating] | float = 0.2) -> NDArray[np.float64]:
    """A phantom with a rim at the top of the range, as Shepp's and Logan's has."""
    rows, columns = np.mgrid[:128, :128] / 64 - 1
    radius = np.hypot(rows, columns / 0.75)[..., None].repeat(2, 2)
    return np.where(radius > 0.9, 0, np.where(radius > 0.8, 1.0, inside))


def field(scale: float, masked: float | None = None) -> NDArray[np.float32]:
    """Phase of a smooth field in 12 bits, noise around it, or a constant."""
    rows, columns = np.mgrid[:128, :128] / 64 - 1
    inside = np.hypot(rows, columns) < 0.8
    signal = np.where(inside, np.exp(1j * scale * (rows**2 + 0.6 * columns)), 0)
    angle = np.angle(signal + 0.05 * (np.random.default_rng(3).standard_normal((2, *inside.shape)).T @ [1, 1j]).T)
    angle = np.rint((angle + np.pi) / (2 * np.pi) * 4095)
    angle = angle if masked is None else np.where(inside, angle, masked)
    return angle[..., None].repeat(2, 2).astype(np.float32)


IMAGES = {
    "magnitude": ("MR", head()),
    "a rim": ("MR", noisy(100 * rim(), 1)),
    "a rim in noise": ("MR", noisy(100 * rim(), 8)),
    "a rim around all values": ("MR", noisy(100 * rim(np.linspace(0, 1, 128)[:, None, None]), 1)),
    "a narrow window": ("MR", np.random.default_rng(4).normal(130, 60, (64, 64, 6)).clip(0, 255)),
    "stripes": ("MR", noisy(100 * (np.mgrid[:128, :128][0] // 4 % 2 * 1.0)[..., None].repeat(2, 2), 5)),
    "magnitude in [0, 1]": ("MR", head() / head().max()),
    "8 bits, saturated": ("MR", np.rint(head() / 2).clip(0, 255)),
    "skull-stripped": ("MR", np.where(head() > 150, head(), 0)),
    "ringing of a resampled magnitude": ("MR", np.where(head() > 150, head(), np.random.default_rng(1).normal(0, 2))),
    "constant": ("MR", np.zeros((64, 64, 6), np.float32)),
    "body": ("CT", body()),
    "body in rounded HU": ("CT", np.rint(body())),
    "padded": ("CT", padded(body(), -2000)),
    "air set to one value": ("CT", np.where(body() < -500, -1024, body())),
    "metal": ("CT", np.where(body() > 850, 12000, body())),
    "constant HU": ("CT", np.full((64, 64, 6), 40, np.float32)),
}
NO_IMAGES = {
    "mask": ("MR", (head() > 150).astype(np.float32), "label map"),
    "mask of CT": ("CT", (body() > 0).astype(np.float32), "label map"),
    "mask of halves": ("MR", (head() > 150) / 2, "label map"),
    "labels": ("MR", atlas(9), "label map"),
    "atlas of 112": ("MR", atlas(112), "label map"),
    "atlas in CT": ("CT", atlas(112), "label map"),
    "phase in radians": ("MR", phase(-np.pi, np.pi), "negative"),
    "phase in stored numbers": ("MR", phase(0, 4095), "wrapped phase"),
    "smooth phase": ("MR", field(20), "wrapped phase"),
    "phase, masked": ("MR", field(30, 0), "wrapped phase"),
    "phase, masked in the middle": ("MR", field(30, 2048), "wrapped phase"),
    "z-scores": ("MR", (head() - head().mean()) / head().std(), "negative"),
    "z-scores of the brain, zero background": ("MR", np.where(head() > 150, head() - 450, 0), "negative"),
    "HU in [0, 1]": ("CT", ((body() + 1024) / 2000).clip(0, 1), "too little"),
    "1/mm": ("CT", (body() + 1000) * 2e-5, "too little"),
    "HU + 1024": ("CT", body() + 1024, "shifted"),
    "HU + 1000 with noise below 0": ("CT", body() + 1000, "shifted"),
    "HU + 1024, padded": ("CT", padded(body(), -2000) + 1024, "shifted"),
    "grey levels": ("CT", np.rint((body() + 1024) / 16).clip(0, 255), "shifted"),
    "windowed": ("CT", body().clip(-160, 240), "without air"),
}


def saved(path: Path, values: NDArray[np.floating]) -> Path:
    nibabel.Nifti1Image(values.astype(np.float32), np.diag([1.0, 1.0, 3.0, 1.0])).to_filename(path)
    return path


@pytest.mark.parametrize("case", IMAGES)
def test_images_are_read(case: str, tmp_path: Path) -> None:
    modality, values = IMAGES[case]
    (volume,) = open_images(saved(tmp_path / "scan.nii", values), modality)
    np.testing.assert_array_equal(volume.array[0], values.astype(np.float32))
    Volume.from_array(values, np.eye(4), modality)


@pytest.mark.parametrize("case", NO_IMAGES)
def test_values_that_are_no_image_are_refused_unless_somebody_knows_better(case: str, tmp_path: Path) -> None:
    modality, values, word = NO_IMAGES[case]
    path = saved(tmp_path / "scan.nii", values)
    (entry,) = inventory(path, Modality(modality))
    with pytest.raises(NotAnImageError, match=f"{word}.*pass force_modality=True"):
        entry.load()
    (volume,) = open_images(path, modality, force_modality=True)
    np.testing.assert_array_equal(volume.array[0], values.astype(np.float32))
    assert any(word in note for note in volume.notes)
    with pytest.raises(ValueError, match=word):
        Volume.from_array(values, np.eye(4), modality)
    forced = Volume.from_array(values, np.eye(4), modality, force_modality=True)
    np.testing.assert_array_equal(forced.array, volume.array)


def test_a_name_is_refused_before_anything_is_read_and_overruled_by_the_same_choice(tmp_path: Path) -> None:
    path = saved(tmp_path / "sub-1_part-phase_bold.nii", head())
    (entry,) = inventory(path)
    assert str(entry.refusal).startswith("phase by its name or folder: its values are no MR magnitude; restore")
    with pytest.raises(RefusedError, match="phase by its name"):
        entry.load()
    (forced,) = inventory(path, force_modality=True)
    assert forced.refusal is None
    assert forced.load().notes[-1].startswith("read all the same: phase by its name")
    broken = tmp_path / "x_seg.nii"
    broken.write_bytes(path.read_bytes()[:500])
    (entry,) = inventory(broken, Modality.MR, force_modality=True)
    assert "cut short" in str(entry.refusal), "what cannot be read is not forced"


@pytest.mark.parametrize(
    ("sidecar", "refused"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "Units": "arbitrary"}, False),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, True),
        ({"ComplexImageComponent": "PHASE"}, True),
        ({"Units": "Hz"}, True),
        ({"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "ep2d_ADC"}, True),
        ([1, 2], False),
        ({"ImageType": 7, "Units": None}, False),
    ],
)
def test_a_sidecar_tells(sidecar: object, refused: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "scan.nii", head())
    (tmp_path / "scan.json").write_text(json.dumps(sidecar))
    (entry,) = (one for one in inventory(tmp_path, Modality.MR) if one.format == "nifti")
    assert path in entry.paths
    assert ("by its sidecar" in str(entry.refusal)) is refused


def test_statistics_are_told_by_their_intent(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(head(), np.eye(4))
    image.header.set_intent("t test", (20,))
    image.to_filename(tmp_path / "scan.nii")
    (entry,) = inventory(tmp_path / "scan.nii", Modality.MR)
    assert "a parameter map by its header" in str(entry.refusal)
