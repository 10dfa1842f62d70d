"""Label maps of segmenters: on the grid of the image, one file for each, none replaced."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, Orientationd

from monai_sasm.recipes.inference import label_maps, nifti_files
from monai_sasm.transforms.label_maps import SaveLabelMapd

AFFINE = np.array([[-1.0, 0, 0, 7], [0, 1.2, 0, -5], [0, 0, 3, 2], [0, 0, 0, 1]])


def image(path: Path, level: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.full((5, 6, 4), level, np.float32), AFFINE), path)
    return path


def segmented(files: list[dict[str, str]], output: Path, *, overwrite: bool = False) -> None:
    """Labels that are the level of the image at half of its voxels, 0 elsewhere, as scores of a network."""
    before = Compose([LoadImaged("image", image_only=True, ensure_channel_first=True), Orientationd("image", "RAS")])
    after = label_maps(before, output, overwrite=overwrite)
    for item in files:
        data = before(item)
        level = int(data["image"].max())
        scores = torch.zeros(4, *data["image"].shape[1:])
        scores[level, :, :3] = 1
        scores[0, :, 3:] = 1
        after({**data, "pred": scores})


def test_labels_lie_on_the_grid_of_the_image(tmp_path: Path) -> None:
    segmented(nifti_files(image(tmp_path / "a.nii", 2)), tmp_path / "out")
    found = nibabel.load(tmp_path / "out" / "a_seg.nii.gz")
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)
    labels = np.asarray(found.dataobj)
    assert labels.shape == (5, 6, 4)
    assert (labels[:, :3] == 2).all()
    assert (labels[:, 3:] == 0).all()


def test_images_of_one_name_have_labels_of_their_own(tmp_path: Path) -> None:
    for level, name in ((1, "a.nii"), (2, "a.nii.gz")):
        image(tmp_path / "in" / name, level)
    other = image(tmp_path / "subject" / "A.nii", 3)
    segmented([*nifti_files(tmp_path / "in"), *nifti_files(other)], tmp_path / "out")
    found = {path.name: int(nibabel.load(path).get_fdata().max()) for path in (tmp_path / "out").iterdir()}
    assert found == {"a_seg.nii.gz": 1, "a-niigz_seg.nii.gz": 2, "subject_A_seg.nii.gz": 3}


def test_nothing_is_replaced_unless_told(tmp_path: Path) -> None:
    files = nifti_files(image(tmp_path / "a.nii"))
    (tmp_path / "a_seg.nii.gz").write_text("mine")
    with pytest.raises(RuntimeError) as caught:  # of MONAI's Compose
        segmented(files, tmp_path)
    assert isinstance(caught.value.__cause__, FileExistsError)
    assert (tmp_path / "a_seg.nii.gz").read_text() == "mine"
    segmented(files, tmp_path, overwrite=True)
    assert nibabel.load(tmp_path / "a_seg.nii.gz").shape == (5, 6, 4)
    assert nifti_files(tmp_path) == files, "labels are no images"


def test_one_channel_of_one_key() -> None:
    with pytest.raises(ValueError, match="one key"):
        SaveLabelMapd(["a", "b"], "out")
    with pytest.raises(ValueError, match="has one channel"):
        SaveLabelMapd("pred", "out")({"pred": torch.zeros(2, 3, 3)})
