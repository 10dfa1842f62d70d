"""The recipes of shipped weights that are overlays of their own: a small run of each, from first to last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from tests.bundle_cases import paired_folder
from tests.bundles.test_configs import training


def test_contrast_gain_on_measured_and_simulated_pairs(tmp_path: Path) -> None:
    data = paired_folder(tmp_path, "CT", "low-dose")
    workflow = training(
        "lowdose_ct_unet", data, tmp_path / "run", "train_cpu.yaml", "train_contrast.yaml",
        initial_weights="", measured_full=[str(data / "train" / "clean")], clean_ct=[str(data / "train" / "clean")],
        measured_count=1, clean_count=2, phantom_count=1, **{"dose_sources::0::named": ""},
    )  # fmt: skip
    get = workflow.parser.get_parsed_content
    assert len(get("train::simulated")) == 1 + 0 + 2 + 1
    workflow.run()
    batch = next(iter(get("train::dataloader")))
    image, target, (sigma,), _ = get("train::prepare")(batch, "cpu")
    assert len(image) == len(target) == len(sigma) == 2 * len(batch["clean"])
    assert (tmp_path / "run" / "simulated_pairs.npz").is_file()
    exported = torch.load(tmp_path / "run" / "model.pt", weights_only=True)
    assert exported.keys() == get("network").state_dict().keys()
    assert 0 < get("budget").passed < 50


@pytest.fixture
def heads(tmp_path: Path) -> dict[str, list[str]]:
    """Folders with a head each, to train on and to validate on."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        array = 100 + 800 * gaussian_filter(random.random((56, 60, 64)), 2)
        image = nibabel.Nifti1Image(array.astype(np.int16), np.eye(4))
        nibabel.save(image, tmp_path / split / "sub-01_T1w.nii.gz")
    return {"train_folders": [str(tmp_path / "train")], "val_folders": [str(tmp_path / "val")]}


@pytest.mark.parametrize(
    ("bundle", "further", "shape"),
    [
        ("superres_mri_unet", {"network_def::zero_init": False}, (32, 5, 48, 48)),
        ("superres_mri_dit", {"validate::dataset::size": 32}, (64, 5, 32, 32)),
        ("superres_mri_esrgan", {"validate::dataset::size": 32}, (32, 1, 48, 48)),
    ],
)
def test_whole_heads(
    tmp_path: Path, heads: dict[str, list[str]], bundle: str, further: dict[str, Any], shape: tuple[int, ...]
) -> None:
    workflow = training(
        bundle, tmp_path, tmp_path / "run", "train_cpu.yaml", "train_whole_head.yaml", initial_weights="",
        small_folders=heads["train_folders"], batches_per_epoch=2, min_std=0.0, crop_size=shape[-1], **heads, **further,
    )  # fmt: skip
    get = workflow.parser.get_parsed_content
    whole, small = get("train::dataset").parts
    assert whole[0]["clean"].shape == (shape[0], 1, *shape[2:])
    assert whole[0]["noisy"].shape == shape
    assert small[0]["noisy"].shape[1:] == shape[1:]
    workflow.run()
    assert get("validate::evaluator").state.metrics["val_psnr"] > 0
    assert (tmp_path / "run" / "model.pt").is_file()


def test_planes_across_thick_slices(tmp_path: Path, heads: dict[str, list[str]]) -> None:
    workflow = training(
        "superres_mri_unet", tmp_path, tmp_path / "run", "train_cpu.yaml", "train_thick_slices.yaml",
        initial_weights="", batches_per_epoch=2, min_std=0.0, **heads, **{"network_def::zero_init": False},
    )  # fmt: skip
    get = workflow.parser.get_parsed_content
    planes = get("planes")
    assert planes[0]["noisy"].shape == (32, 5, 48, 48)
    assert not planes.turned
    clean, thick = get("validate::images")[0]
    assert float(np.abs(np.diff(thick[2], axis=0)).mean()) < float(np.abs(np.diff(clean[0], axis=0)).mean())
    workflow.run()
    assert get("validate::evaluator").state.metrics["val_psnr"] > 0
    assert (tmp_path / "run" / "model.pt").is_file()
