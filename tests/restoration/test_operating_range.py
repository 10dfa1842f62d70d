"""Operating range of experts: what lies outside is a note with value and range, and nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from monai_sasm.bundles import available, read_metadata
from monai_sasm.cli.main import app
from monai_sasm.errors import BundleError
from monai_sasm.io.acquisition import Acquisition
from monai_sasm.io.dicom.acquisition import OTHER
from monai_sasm.io.formats import open_images
from monai_sasm.io.volume import Volume
from monai_sasm.restoration.operating_range import OUTSIDE, outside
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.data import ct_small
from tests.evaluation.networks import blurring

ALLOWED: dict[str, Any] = {
    "noise": [2, 90], "pixel_mm": [0.4, 1.0], "kernels": ["B30f", "D45f"], "body_parts": ["CHEST"]
}  # fmt: skip


@pytest.mark.parametrize(
    ("acquired", "noise", "pixels", "reasons"),
    [
        (Acquisition(kernel="b30F", body_part="chest"), 30.0, (0.7, 0.7), []),
        (Acquisition(), 0.5, (), []),  # less noise than in training, and nothing known: no reason for a note
        (
            Acquisition(),
            120.4,
            (1.3, 1.3),
            ["noise estimate 120 HU (up to 90 HU)", "pixels of 1.3 x 1.3 mm (0.4 to 1 mm)"],
        ),
        (
            Acquisition(kernel="BONE", body_part="HEAD"),
            20.0,
            (0.398, 0.398),  # within the tolerance
            ["kernel BONE (B30f, D45f)", "body part HEAD (CHEST)"],
        ),
    ],
)
def test_reasons_name_value_and_range(
    acquired: Acquisition, noise: float, pixels: tuple[float, ...], reasons: list[str]
) -> None:
    assert outside(ALLOWED, acquired, noise=noise, unit=" HU", pixels=pixels) == reasons


def restorer_with(allowed: dict[str, Any], expert: str) -> Restorer:
    bundles = blurring()
    changed = replace(bundles[expert], metadata={"sasm": {**bundles[expert].metadata["sasm"], "range": allowed}})
    return Restorer.of({expert: changed}, bundles["gate"])


@pytest.mark.parametrize(("sigma", "told"), [(40.0, False), (300.0, True)])
def test_noise_of_ct_is_compared_in_hounsfield_units(sigma: float, told: bool) -> None:
    noise = np.random.default_rng(0).normal(0, sigma, (1, 96, 96)).astype(np.float32)
    volume = Volume(noise, Modality.CT, np.diag([0.8, 0.8, 3.0, 1.0]))
    result = restorer_with(ALLOWED, "lowdose_ct_unet")(volume)
    assert bool(result.volume.notes) == told
    if told:
        assert result.volume.notes[0].startswith(
            f"{OUTSIDE} that lowdose_ct_unet was trained and measured for: noise estimate 2"
        )
    assert not restorer_with({}, "lowdose_ct_unet")(volume).volume.notes


@pytest.mark.parametrize("white", [10.0, 4000.0])
def test_noise_of_mr_is_compared_as_a_share_of_white(white: float) -> None:
    scene = np.zeros((1, 96, 96), np.float32)
    scene[:, 16:80, 16:80] = white
    scene += np.random.default_rng(0).normal(0, 0.2 * white, scene.shape).astype(np.float32)
    volume = Volume(np.abs(scene), Modality.MR, np.diag([0.8, 0.8, 3.0, 1.0]))
    (note,) = restorer_with({"noise": [0.01, 0.05]}, "noise_mri_unet")(volume).volume.notes
    share = float(note.split("noise estimate ")[1].split(" of white")[0])
    assert 0.05 < share < 0.2
    assert note.endswith("(up to 0.05 of white)")


def test_an_expert_that_did_not_act_says_nothing() -> None:
    noise, coarse = (
        np.random.default_rng(0).normal(0, 20, (1, 64, 64)).astype(np.float32),
        np.diag([5.0, 5.0, 3.0, 1.0]),
    )
    restorer = restorer_with(ALLOWED, "lowdose_ct_unet")
    (note,) = restorer(Volume(noise, Modality.CT, coarse)).volume.notes
    assert note.endswith("pixels of 5 x 5 mm (0.4 to 1 mm)")
    same = restorer(Volume(np.zeros_like(noise), Modality.CT, coarse)).volume.notes
    photo = Volume(np.random.default_rng(0).random((3, 64, 64)).astype(np.float32), Modality.PHOTO)
    assert not any(OUTSIDE in note for note in (*same, *restorer_with(ALLOWED, "noise_photo_unet")(photo).volume.notes))


def test_kernel_and_body_part_come_from_the_header() -> None:
    volume = next(open_images(ct_small()))
    acquired = volume.source.acquisition()
    assert (acquired.scanner, acquired.kilovolts, acquired.thickness) == ("GE MEDICAL SYSTEMS RHAPSODE", 120.0, 5.0)
    assert acquired.kernel == "STANDARD"


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        *((name, name) for name in ("STD+", "HD LUNG", "BONE+", "Standard", "FC13-H", "B_VSHARP_C", "YA", "11")),
        (["Br38f", "3"], "Br38f"),
        *((name, OTHER) for name in ("DOE^JANE", "MILLER", "Doe", "19500101", "Bone Jane", "LI J", "LI-WU")),
    ],
)
def test_a_kernel_is_told_by_its_name_and_no_patient_by_his(tmp_path: Path, kernel: str | list[str], told: str) -> None:
    """Of any maker; what damage has put there instead of a kernel is not repeated."""
    header = pydicom.dcmread(ct_small())
    header.ConvolutionKernel = kernel
    header.save_as(tmp_path / "one.dcm")
    (volume,) = open_images(tmp_path / "one.dcm")
    (reason,) = outside({"kernels": ["B30f", "D45f"]}, volume.source.acquisition(), noise=0, unit=" HU", pixels=[])
    assert reason == f"kernel {told} (B30f, D45f)"


def test_restore_tells_it_in_row_and_log(tmp_path: Path) -> None:
    """The one small CT slice that comes with pydicom has pixels of 0.66 mm; no shipped super-resolution is for CT."""
    command = ["restore", str(ct_small()), "-o", str(tmp_path), "--expert", "lowdose_ct_dit", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout.splitlines()[-1])
    (note,) = row["notes"]
    assert note.startswith(OUTSIDE)
    assert "kernel STANDARD (B30f, D45f)" in note
    assert "pixels of 0.661 x 0.661 mm (0.7 to 0.83 mm)" in note
    assert note in result.stderr


@pytest.mark.parametrize("wrong", [{"noise": [3]}, {"noise": [3, 1]}, {"kernels": "B30f"}, {"age": [1, 2]}, [1, 2]])
def test_a_malformed_range_is_named(wrong: Any, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    section = {"role": "expert", "modality": "CT", "degradation": "noise", "range": wrong}
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"sasm": section}))
    with pytest.raises(BundleError, match=r"sasm\.range takes noise and pixel_mm as \[lowest, highest\]"):
        read_metadata(tmp_path)


@pytest.mark.parametrize("name", sorted(available()))
def test_every_medical_expert_states_its_range(name: str) -> None:
    section = read_metadata(available()[name])["sasm"]
    if section["role"] != "expert" or section["modality"] == "PHOTO":
        assert "range" not in section
        return
    allowed = section["range"]
    assert set(allowed) <= {"noise", "pixel_mm", "kernels", "body_parts"}
    assert {"noise", "pixel_mm", "body_parts"} <= set(allowed)
    assert ("kernels" in allowed) == (section["modality"] == "CT")
    assert all(0 <= low < high for low, high in (allowed["noise"], allowed["pixel_mm"]))
