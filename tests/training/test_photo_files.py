"""Photos are found in subfolders when asked for, and may stay on disk until a crop is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from monai_sasm.datasets.crops import CropDataset, FileCropDataset
from monai_sasm.datasets.images import photo_files, photos
from tests.bundle_cases import ROOT, clean_image, save


def written(root: Path) -> Path:
    """Two photos, one of them in a subfolder."""
    save(clean_image("PHOTO", 64), "PHOTO", root, "a")
    save(clean_image("PHOTO", 96), "PHOTO", root / "n01440764", "b")
    return root


def test_subfolders_are_looked_into_when_asked_for(tmp_path: Path) -> None:
    root = written(tmp_path)
    assert [path.stem for path in photo_files([root])] == ["a"]
    assert [path.stem for path in photo_files([root], recursive=True)] == ["a", "b"]
    assert [path.stem for path in photo_files([root], exclude=["a"], recursive=True)] == ["b"]
    assert [photo.shape for photo in photos([root], recursive=True)] == [(3, 64, 64), (3, 96, 96)]
    with pytest.raises(FileNotFoundError, match="no photos"):
        photo_files([root / "empty"])


def test_crops_are_cut_from_the_files(tmp_path: Path) -> None:
    """With one photo the choice of the photo and of the crop take the same random numbers as in memory."""
    root = written(tmp_path)
    crops = FileCropDataset(photo_files([root]), 32, 6, seed=3, fixed=True)
    photo = photos([root])[0]

    class Twice(CropDataset):
        def _crop(self) -> list[np.ndarray]:
            self.draws.random.integers(1)  # the choice of the file
            return super()._crop()

    held = Twice([photo], 32, 6, seed=3, fixed=True)
    assert all(torch.equal(crops[index]["image"], held[index]["image"]) for index in range(6))
    assert not torch.equal(crops[0]["image"], crops[1]["image"])


def test_small_photos_are_passed_over(tmp_path: Path) -> None:
    root = written(tmp_path)
    crops = FileCropDataset(photo_files([root], recursive=True), 80, 5)
    assert [crops[index]["image"].shape for index in range(5)] == [(3, 80, 80)] * 5
    crops = FileCropDataset(photo_files([root], recursive=True), 200, 1)
    with pytest.raises(ValueError, match="none was at least 200 pixels"):
        crops[0]


def test_the_enhancer_trains_from_files(tmp_path: Path) -> None:
    for split in ("train", "val"):
        written(tmp_path / split / "clean")
    configs = ROOT / "bundles" / "enhance_photo_diffusion" / "configs"
    settings = {
        "dataset_dir": str(tmp_path),
        "output_dir": str(tmp_path / "run"),
        "crops_per_epoch": 4,
        "batch_size": 2,
        "crop_size": 48,
        "max_epochs": 1,
        "val_limit": 2,
        "val_interval": 1,
        "validate::dataset::size": 48,
        "unet::network::channels": [8, 16, 16],
        "unet::network::num_head_channels": 8,
    }
    files = [str(configs / name) for name in ("train.yaml", "train_files.yaml")]
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", **settings)
    workflow.initialize()
    workflow.run()
    assert [path.stem for path in workflow.parser.get_parsed_content("train::images")] == ["a", "b"]
    assert workflow.parser.get_parsed_content("train::trainer").state.iteration == 2
