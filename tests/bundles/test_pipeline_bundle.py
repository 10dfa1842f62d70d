"""The whole pipeline as one bundle: runs from any directory, keeps everything but the pixels, owns no weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigWorkflow, run, verify_net_in_out

from monai_sasm.io.formats import open_images
from monai_sasm.restoration.restorer import Restorer
from monai_sasm.types import Modality
from tests.bundle_cases import AFFINE, ROOT, clean_image, degraded_image, load, save
from tests.data import ct_small
from tests.toy_gate import GATE, write_stand_ins

SASM = ROOT / "bundles" / "sasm"
CONFIG = SASM / "configs" / "inference.yaml"
PARTS = (GATE, "noise_photo_unet", "raindrop_photo_unet", "lowdose_ct_unet", "noise_mri_unet")


@pytest.fixture
def restorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user folder with stand-ins for bundles that have no trained weights yet."""
    folder = write_stand_ins(tmp_path / "bundles", PARTS)
    monkeypatch.setenv("SASM_BUNDLES", str(folder))
    return folder


def test_weights_are_an_empty_state_dict(restorer: Path) -> None:
    workflow = ConfigWorkflow(config_file=str(CONFIG), workflow_type="infer")
    workflow.initialize()
    state = torch.load(SASM / "models" / "model.pt", weights_only=True)
    assert dict(state) == {}
    workflow.network_def.load_state_dict(state, strict=True)


@pytest.mark.parametrize(("modality", "channels"), [("PHOTO", 3), ("CT", 1), ("MR", 1)])
def test_network_takes_and_gives_what_the_metadata_say(
    restorer: Path, tmp_path: Path, modality: str, channels: int
) -> None:
    metadata = json.loads((SASM / "configs" / "metadata.json").read_text())
    for side in ("inputs", "outputs"):
        for tensor in metadata["network_data_format"][side].values():
            assert tensor["num_channels"] == 3, "the default modality is PHOTO"
            tensor["num_channels"] = channels
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(tmp_path / "metadata.json"),
        config_file=str(CONFIG),
        modality=modality,
        any=16,
    )


def test_inference_has_the_properties_monai_asks_for(restorer: Path, tmp_path: Path) -> None:
    save(clean_image("MR"), "MR", tmp_path / "in")
    settings = {"dataset_dir": str(tmp_path / "in"), "modality": "MR"}
    workflow = ConfigWorkflow(config_file=str(CONFIG), workflow_type="infer", **settings)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert len(workflow.dataset) == 1


@pytest.mark.parametrize("modality", ["CT", "MR", "PHOTO"])
def test_the_bundle_is_the_sentence(restorer: Path, tmp_path: Path, modality: str) -> None:
    clean = clean_image(modality)
    noisy = degraded_image(modality, "noise", clean)
    source = save(noisy, modality, tmp_path / "in", slices=8)
    if modality != "PHOTO":  # noise that comes and goes: slices judged alone would get other weights
        shares = np.array([0, 1, 0.2, 1, 0, 1, 0.5, 0])
        volume = np.moveaxis(clean, 0, -1) + shares * np.moveaxis(noisy - clean, 0, -1)
        nibabel.save(nibabel.Nifti1Image(np.round(volume).astype(np.int16), AFFINE), source)
    run(config_file=str(CONFIG), dataset_dir=str(source), output_dir=str(tmp_path / "out"), modality=modality)
    result = next(open_images(tmp_path / "out" / source.name, Modality(modality))).array
    expected = Restorer("cpu")(next(open_images(source, Modality(modality)))).volume.array
    expected = expected.clip(0, 1) if modality == "PHOTO" else expected
    np.testing.assert_allclose(result, expected, atol=0.51 / 255 if modality == "PHOTO" else 0.51)
    if modality != "PHOTO":
        np.testing.assert_array_equal(nibabel.load(source).affine, nibabel.load(tmp_path / "out" / source.name).affine)


def test_strength_zero_keeps_every_pixel(restorer: Path, tmp_path: Path) -> None:
    source = save(degraded_image("MR", "noise", clean_image("MR")), "MR", tmp_path / "in")
    settings = {"dataset_dir": str(source), "output_dir": str(tmp_path / "out"), "modality": "MR", "strength": 0.0}
    run(config_file=str(CONFIG), **settings)
    np.testing.assert_array_equal(load(tmp_path / "out" / source.name), load(source))


@pytest.mark.slow
def test_dicom_from_any_directory_names_every_model(restorer: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "slice.dcm").write_bytes(ct_small().read_bytes())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    options = {"config_file": CONFIG, "dataset_dir": "../in", "output_dir": "out"}
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += [part for key, value in options.items() for part in (f"--{key}", str(value))]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment["SASM_BUNDLES"] = str(restorer)
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    files = list((elsewhere / "out").rglob("*.dcm"))
    assert len(files) == 1
    before, after = pydicom.dcmread(ct_small()), pydicom.dcmread(files[0])
    assert after.ImageType[0] == "DERIVED"
    assert (after.Rows, after.Columns, after.Modality) == (before.Rows, before.Columns, "CT")
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert "lowdose_ct_unet" in after.DerivationDescription
    assert "gate_mobilenet" in after.DerivationDescription
