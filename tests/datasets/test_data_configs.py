"""The overlays that point a training at a public data set resolve to its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from tests.bundle_cases import ROOT
from tests.datasets.test_mayo import CHALLENGE, scan

MRI = "noise_mri_unet"


def parsed(bundle: str, overlay: str, **settings: Any) -> ConfigParser:
    """Training config of a bundle under a data overlay."""
    parser = ConfigParser()
    parser.read_config([ROOT / "bundles" / bundle / "configs" / "train.yaml", ROOT / "configs" / f"{overlay}.yaml"])
    parser.update(settings)
    return parser


def head(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 900, (16, 18, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, 4, 1])), path)  # type: ignore[attr-defined]


def test_mayo(tmp_path: Path) -> None:
    for patient in ("L096", "L333", "L506"):
        for folder in CHALLENGE:
            scan(tmp_path, folder.replace("L096", patient), [0.0, 3.0])
    config = parsed("lowdose_ct_unet", "data_mayo", dataset_dir=str(tmp_path))
    assert [pair[0].shape for pair in config.get_parsed_content("train::images")] == [(1, 64, 64)] * 2
    assert len(config.get_parsed_content("validate::images")) == 2


def test_fastmri(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for part in ("train", "val"):
        (tmp_path / f"singlecoil_{part}").mkdir()
        with h5py.File(tmp_path / f"singlecoil_{part}" / "file1.h5", "w") as file:
            file["reconstruction_rss"] = np.random.default_rng(0).random((2, 16, 16)).astype(np.float32)
    config = parsed(MRI, "data_fastmri", dataset_dir=str(tmp_path))
    assert len(config.get_parsed_content("train::images")) == len(config.get_parsed_content("validate::images")) == 2


def test_ixi(tmp_path: Path) -> None:
    for number in (2, 449, 450, 500):
        head(tmp_path / "IXI-T2" / f"IXI{number:03d}-HH-1211-T2.nii.gz")
    config = parsed(MRI, "data_ixi", dataset_dir=str(tmp_path))
    assert len(config.get_parsed_content("train::images")) == 2 * 3
    assert len(config.get_parsed_content("validate::images")) == 3


def test_brats(tmp_path: Path) -> None:
    for number in range(3):
        head(tmp_path / f"BraTS2021_0000{number}" / f"BraTS2021_0000{number}_t2.nii.gz")
    config = parsed(MRI, "data_brats", dataset_dir=str(tmp_path), val_subjects=["BraTS2021_00001"])
    assert len(config.get_parsed_content("train::images")) == 2 * 3
    (held_out,) = config.get_parsed_content("val_folders")
    assert "BraTS2021_00001" in held_out
