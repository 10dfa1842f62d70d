"""DICOM objects whose pixels are no image of their modality: told from headers, set apart from images, overruled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from monai_sasm.errors import RefusedError
from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import inventory, save
from monai_sasm.io.maps import write_map
from monai_sasm.types import Modality
from tests.io.dicom.dicom_cases import (
    ENHANCED_MR,
    STEP,
    ct_slice,
    enhanced_ct,
    mr_slice,
    save_all,
    stored_values,
    uid,
)
from tests.io.dicom.dicom_cases import save as save_file

OVERRULED = "or pass force_modality=True"


def with_private(dataset: Dataset, group: int, creator: str, element: int, value: int) -> Dataset:
    dataset.private_block(group, creator, create=True).add_new(element, "SS", value)
    return dataset


def with_unit(dataset: Dataset, unit: str) -> Dataset:
    code, mapping = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    mapping.MeasurementUnitsCodeSequence = Sequence([code])
    dataset.RealWorldValueMappingSequence = Sequence([mapping])
    return dataset


def ge(kind: int) -> Callable[[int], Dataset]:
    return lambda n: with_private(mr_slice(n), 0x0043, "GEMS_PARM_01", 0x2F, kind)


def projected(number: int, **attributes: object) -> Dataset:
    return ct_slice(number, **types("DERIVED", "SECONDARY", "AXIAL", "MIP"), **attributes)


def types(*values: str) -> dict[str, object]:
    return {"ImageType": list(values)}


REFUSED: dict[str, tuple[Callable[[int], Dataset], str]] = {
    "image type": (
        lambda n: mr_slice(n, **types("ORIGINAL", "PRIMARY", "P_FFE", "P", "FFE")),
        "phase by its Image Type",
    ),
    "fourth value": (lambda n: mr_slice(n, **types("ORIGINAL", "PRIMARY", "M", "B0")), "a parameter map"),
    "component": (lambda n: mr_slice(n, ComplexImageComponent="PHASE"), "phase by its Complex Image Component"),
    "real": (lambda n: mr_slice(n, ComplexImageComponent="REAL"), "real part"),
    "GE phase": (ge(1), "phase by its Complex Image Component or private"),
    "GE real": (ge(2), "real part"),
    "GE imaginary": (ge(3), "imaginary part"),
    "unit": (lambda n: with_unit(mr_slice(n), "um2/s"), "by its Real World Value Mapping"),
    "comment": (lambda n: mr_slice(n, ImageComments="relative phase map"), "phase by its description"),
    "mosaic": (lambda n: mr_slice(n, **types("ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC")), "mosaic of slices"),
    "mosaic by its private attribute": (
        lambda n: with_private(mr_slice(n), 0x0019, "SIEMENS MR HEADER", 0x0A, 16),
        "mosaic of slices",
    ),
    "iodine": (lambda n: ct_slice(n, **types("DERIVED", "PRIMARY", "AXIAL", "IODINE")), "no Hounsfield units"),
}
KEPT: dict[str, Callable[[int], Dataset]] = {
    "GE magnitude": ge(0),
    "another creator": lambda n: with_private(mr_slice(n), 0x0043, "SOMEBODY", 0x2F, 1),
    "magnitude": lambda n: mr_slice(n, ComplexImageComponent="MAGNITUDE"),
    "unit 1": lambda n: with_unit(mr_slice(n), "1"),
    "HU": lambda n: with_unit(ct_slice(n), "[hnsf'U]"),
    "trace": lambda n: mr_slice(n, **types("DERIVED", "PRIMARY", "DIFFUSION", "TRACEW")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_image_is_refused_before_it_is_read_and_can_be_overruled(case: str, tmp_path: Path) -> None:
    make, word = REFUSED[case]
    folder = save_all([make(number) for number in range(3)], tmp_path)
    (entry,) = inventory(folder)
    assert word in str(entry.refusal)
    assert OVERRULED in str(entry.refusal)
    assert (entry.geometry, len(entry.paths)) == ("regular", 3)
    with pytest.raises(RefusedError, match=word):
        entry.load()
    (forced,) = inventory(folder, force_modality=True)
    assert forced.refusal is None
    volume = forced.load()
    assert volume.array.shape == (1, 3, 64, 64)
    assert word in volume.notes[-1]


@pytest.mark.parametrize("case", KEPT)
def test_what_is_an_image_stays_one(case: str, tmp_path: Path) -> None:
    (entry,) = inventory(save_all([KEPT[case](number) for number in range(3)], tmp_path))
    assert entry.refusal is None
    assert entry.load().notes == ()


def test_private_attributes_are_read_without_their_type(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(save_file(ge(1)(0), tmp_path / "explicit.dcm"))
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "explicit.dcm")
    (entry,) = inventory(tmp_path)
    assert "phase" in str(entry.refusal)


def enhanced_mr(components: list[str], top: str) -> Dataset:
    """One frame of each component at each of three positions."""
    dataset = enhanced_ct([STEP * (n // len(components)) for n in range(3 * len(components))])
    dataset.SOPClassUID, dataset.Modality, dataset.ComplexImageComponent = ENHANCED_MR, "MR", top
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleIntercept = 0
    pixels = np.stack([stored_values(n) for n in range(3 * len(components))])
    dataset.PixelData = pixels.astype("<i2").tobytes()
    for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        kind = Dataset()
        kind.FrameType = ["ORIGINAL", "PRIMARY", "T2_STAR", "NONE"]
        kind.ComplexImageComponent = components[number % len(components)]
        frame.MRImageFrameTypeSequence = Sequence([kind])
    return dataset


def test_frames_are_told_apart_by_their_own_component(tmp_path: Path) -> None:
    save_file(enhanced_mr(["MAGNITUDE", "PHASE"], "MIXED"), tmp_path / "mixed.dcm")
    kept, refused = sorted(inventory(tmp_path), key=lambda entry: entry.refusal is not None)
    assert (kept.refusal, kept.load().array.shape) == (None, (1, 3, 64, 64))
    np.testing.assert_array_equal(kept.load().array[0, 1], stored_values(2))
    assert "phase" in str(refused.refusal)
    assert len(inventory(tmp_path, force_modality=True)) == 2


def test_a_whole_file_of_phase_frames_is_refused(tmp_path: Path) -> None:
    save_file(enhanced_mr(["PHASE"], "PHASE"), tmp_path / "phase.dcm")
    (entry,) = inventory(tmp_path)
    assert "phase" in str(entry.refusal)


def test_ct_without_its_intercept_is_refused_by_its_values(tmp_path: Path) -> None:
    slices = [ct_slice(n, RescaleIntercept="0", RescaleType=None, PixelPaddingValue=None) for n in range(3)]
    (entry,) = inventory(save_all(slices, tmp_path))
    with pytest.raises(RefusedError, match="Hounsfield"):
        entry.load()


def test_a_duplicate_slice_is_listed_for_what_it_is(tmp_path: Path) -> None:
    slices = [ct_slice(number) for number in range(6)]
    again = ct_slice(3, InstanceNumber=40, SOPInstanceUID=uid("again"))
    folder = save_all([*slices, again], tmp_path)
    save_file(ct_slice(0), tmp_path / "copy")
    told = [entry for entry in inventory(folder) if entry.refusal]
    assert sorted(str(entry.refusal).split(":")[0] for entry in told) == ["a copy", "a duplicate slice"]
    (kept,) = (entry for entry in inventory(folder) if entry.refusal is None)
    assert len(kept.paths) == 6


@pytest.mark.parametrize("positions", [[0, 1, 3, 4], [0, 1, 2.4, 3], [0, 0, 1, 1, 2, 2]])
def test_uneven_slices_are_never_given_a_mean_step(positions: list[float], tmp_path: Path) -> None:
    slices = [mr_slice(n, position=(-20, -30, STEP * z), SOPInstanceUID=uid("z", n)) for n, z in enumerate(positions)]
    (entry,) = (one for one in inventory(save_all(slices, tmp_path / "in")) if one.refusal is None)
    volume = entry.load()
    assert entry.geometry in ("gap", "irregular")
    done = Derivation("monai_sasm", "0")
    with pytest.raises(RefusedError, match="uneven steps"):
        save(volume, tmp_path / "out.nii.gz", done)
    with pytest.raises(RefusedError, match="uneven steps"):
        write_map(volume.array[0], volume, tmp_path / "map.nii.gz")
    assert not [path for path in tmp_path.iterdir() if path.name != "in"]
    assert len(save(volume, tmp_path / "out", done)) == len(positions)


def test_uneven_frames_are_taken_one_by_one(tmp_path: Path) -> None:
    save_file(enhanced_ct([0, STEP, 4 * STEP]), tmp_path / "frames.dcm")
    (entry,) = inventory(tmp_path)
    assert entry.refusal is None
    assert any("slice steps vary from 2.50 to 7.50 mm" in note for note in entry.notes)


def test_modality_is_what_headers_say(tmp_path: Path) -> None:
    (entry,) = inventory(save_all([ge(0)(number) for number in range(2)], tmp_path))
    assert entry.modality is Modality.MR


def test_a_projection_is_restored_with_a_note(tmp_path: Path) -> None:
    (entry,) = inventory(save_all([projected(number) for number in range(3)], tmp_path / "projections"))
    assert entry.refusal is None
    assert "intensity projection" in entry.notes[0]
    assert entry.notes[0] in entry.load().notes
    (entry,) = inventory(save_all([ct_slice(number) for number in range(3)], tmp_path / "slices"))
    assert not any("projection" in note for note in entry.notes)
