"""A modality that the package does not know: one profile and one bundle, and every way through it is open."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

import monai_sasm as sasm
from monai_sasm import types
from monai_sasm.cli.main import main
from monai_sasm.errors import RefusedError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.io.formats import inventory, open_images
from monai_sasm.io.volume import Volume
from monai_sasm.types import DicomProfile, Modality, ModalityProfile, register
from tests.io.dicom.dicom_cases import ct_slice, save_all
from tests.toy_bundles import write_gain_expert, write_trusting_gate

PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
PET = ModalityProfile(
    "PT",
    unit="Bq/ml",
    quantity="activity concentrations",
    images="PET images",
    percentile=99.5,
    window=(0.0, 1.5),
    passes=2,
    nonnegative=True,
    bids_suffixes="pet",
    dicom=DicomProfile(PET_STORAGE, type_2=("DecayFactor",), rescaled=True),
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Modality:
    """PET is known during one test."""
    monkeypatch.setattr(types, "_PROFILES", dict(types._PROFILES))
    monkeypatch.setattr(types, "_KNOWN", dict(types._KNOWN))
    return register(PET)


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    """An expert for PET that halves every value, and a gate that calls it."""
    write_gain_expert(tmp_path / "trust" / "dimmed_pt", 0.5, "PT", "dimmed")
    write_trusting_gate(tmp_path / "trust" / "pt_gate", ["dimmed_pt"])
    return tmp_path / "trust"


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(1, 20_000, (24, 20, 5)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 3.0, 1.0]))
    image.to_filename(tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def pet_slice(number: int) -> Dataset:
    dataset = ct_slice(number, SOPClassUID=PET_STORAGE, Modality="PT", RescaleType=None, RescaleIntercept="0")
    dataset.RescaleSlope = str(1 + number / 10)  # per slice, as scanners write PET
    return dataset


def test_a_volume_takes_unit_and_scaling_from_the_profile(scan: Path) -> None:
    (volume,) = open_images(scan, "PT")
    assert (volume.modality, volume.unit) == ("PT", "Bq/ml")
    white = scaling_for(volume).scale
    bright = volume.array[volume.array > volume.array.mean()]
    assert white == pytest.approx(np.percentile(bright, 99.5), rel=1e-3)
    own = Volume.from_array(volume.array[0], volume.affine, "PT")
    assert scaling_for(own).scale == white
    (unknown,) = inventory(scan)
    assert "say modality='CT' or modality='MR' or modality='PT'" in str(unknown.refusal)
    (named,) = inventory(scan.rename(scan.with_name("sub-01_pet.nii.gz")))
    assert (named.modality, named.refusal) == ("PT", None)


def test_the_restorer_restores_it(scan: Path, trust: Path, tmp_path: Path) -> None:
    restorer = sasm.Restorer("cpu", trust=[trust])
    (volume,) = open_images(scan, "PT")
    result = restorer(volume, gate="pt_gate")
    assert result.plan.passes == 2
    np.testing.assert_allclose(result.volume.array, volume.array / 2, rtol=1e-5)  # the second pass repeats nothing
    named = restorer(volume, expert="dimmed_pt", strength=0.5)
    np.testing.assert_allclose(named.volume.array, 0.75 * volume.array, rtol=1e-5)
    named.save(tmp_path / "out")
    saved = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    np.testing.assert_allclose(saved.get_fdata(), named.volume.array[0], atol=0.5)
    assert "dimmed_pt" in json.loads((tmp_path / "out" / "scan.json").read_text())["Models"]


def test_the_command_line_restores_it(
    scan: Path, trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--modality", "pt", "--expert", "dimmed_pt", "--trust", str(trust), "--device", "cpu", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(scan), "-o", str(out), "--save-maps", *arguments])
    row = json.loads(capsys.readouterr().out)
    assert (ended.value.code, row["status"], row["input"]["modality"]) == (0, "ok", "PT")
    before, after = nibabel.load(scan).get_fdata(), nibabel.load(out / "scan.nii.gz").get_fdata()
    np.testing.assert_allclose(after, before / 2, atol=0.5)
    assert nibabel.load(out / "scan_change.nii.gz").shape == before.shape
    with pytest.raises(SystemExit) as ended:
        main(["degrade", str(scan), "-o", str(tmp_path / "pairs"), "--kind", "gaussian", "--modality", "PT", "-q"])
    assert ended.value.code in (0, None)
    noisy = nibabel.load(tmp_path / "pairs" / "noisy" / "scan.nii.gz").get_fdata()
    assert 0.01 < np.std(noisy - before) / np.percentile(before, 99) < 0.3


def test_trusted_folders_may_be_strings(scan: Path, trust: Path) -> None:
    assert "dimmed_pt" in sasm.Restorer("cpu", trust=[str(trust)]).experts
    with pytest.raises(TypeError, match=r"come as a list, \['.*trust'\], got one alone"):
        sasm.Restorer("cpu", trust=str(trust))


def test_a_dicom_series_becomes_a_derived_one(trust: Path, tmp_path: Path) -> None:
    folder = save_all([pet_slice(number) for number in range(4)], tmp_path / "series")
    (volume,) = open_images(folder)
    assert (volume.modality, volume.name[:9]) == ("PT", "PT-series")
    files = sasm.Restorer("cpu", trust=[trust])(volume, expert="dimmed_pt").save(tmp_path / "out")
    assert len(files) == 4
    for source, file, values in zip(volume.source.paths, files, volume.array[0], strict=True):
        before, after = pydicom.dcmread(source), pydicom.dcmread(file)
        assert (after.SOPClassUID, after.Modality, after.DecayFactor) == (PET_STORAGE, "PT", None)
        assert after.RescaleSlope == before.RescaleSlope
        inside = before.pixel_array != before.get("PixelPaddingValue")
        restored = after.pixel_array * float(after.RescaleSlope)
        np.testing.assert_allclose(restored[inside], (values / 2)[inside], atol=float(after.RescaleSlope) / 2 + 1e-2)


def test_an_expert_passes_over_it(scan: Path, trust: Path) -> None:
    (volume,) = open_images(scan, "PT")
    with pytest.raises(ValueError, match="lowdose_ct_unet is for CT"):
        sasm.Restorer("cpu", trust=[trust])(volume, expert="lowdose_ct_unet")


def test_without_its_profile_it_is_refused(scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_all([pet_slice(number) for number in range(2)], tmp_path / "series")
    monkeypatch.delitem(types._KNOWN, "PT")
    with pytest.raises(ValueError, match="'PT' is no known modality; there are CT, MR, PHOTO"):
        open_images(scan, "PT")
    with pytest.raises(
        RefusedError, match="Positron Emission Tomography Image Storage is not restored; only CT and MR"
    ):
        list(open_images(folder))
    with pytest.raises(SystemExit) as ended:
        main(["restore", str(scan), "-o", str(tmp_path / "out"), "--modality", "PT"])
    assert ended.value.code == 2


def test_an_installed_package_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ultrasound = ModalityProfile("US", unit="dB", quantity="echo levels", images="ultrasound images", scale=60.0)
    asked = []

    def entry_points(group: str) -> list[SimpleNamespace]:
        asked.append(group)
        return [SimpleNamespace(load=lambda: register(ultrasound))]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    types._load_plugins.cache_clear()
    try:
        assert Modality("US").profile is ultrasound
        assert asked == ["monai_sasm.modalities"]
    finally:
        types._load_plugins.cache_clear()


def test_a_modality_may_be_written_small() -> None:
    assert (Modality("ct"), Modality("Photo")) == (Modality.CT, Modality.PHOTO)
    array, affine = np.full((8, 8, 3), 100, np.float32), np.eye(4)
    assert Volume.from_array(array, affine, modality="mr", force_modality=True).modality is Modality.MR
    with pytest.raises(ValueError, match="None is no known modality"):
        Modality(None)  # type: ignore[arg-type]


def test_a_profile_is_checked_and_never_replaced() -> None:
    assert register(PET) is Modality("PT")
    with pytest.raises(ValueError, match="another profile is registered as PT"):
        register(ModalityProfile("PT", unit="SUV", quantity="uptake values", images="PET images"))
    with pytest.raises(ValueError, match="upper-case name"):
        register(ModalityProfile("us", unit="dB", quantity="echo levels", images="ultrasound images"))
    with pytest.raises(ValueError, match="scale above 0"):
        register(ModalityProfile("US", unit="dB", quantity="echo levels", images="ultrasound images", scale=0.0))
