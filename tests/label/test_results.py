"""Result files carry the geometry of their source, sheared axes included."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from monai_sasm.io.derivation import Derivation
from monai_sasm.io.formats import open_images
from monai_sasm.label.results import write_image, write_labels
from monai_sasm.label.service import only_volume
from monai_sasm.types import Modality
from tests.label.conftest import OBLIQUE
from tests.label.test_server import affine_of

DONE = Derivation("monai_sasm", "0", {}, {})
SHEARED = OBLIQUE @ np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])  # a tilted gantry


@pytest.fixture
def new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "new"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED], ids=["oblique", "sheared"])
@pytest.mark.parametrize("extension", [".nrrd", ".nii.gz", ".nii", None])
def test_images_and_labels_lie_where_the_source_lies(
    affine: np.ndarray, extension: str | None, tmp_path: Path, new_files: Path
) -> None:
    voxels = np.random.default_rng(0).normal(0, 500, (5, 6, 7)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "in.nii")
    volume = next(open_images(tmp_path / "in.nii", Modality.CT))
    image = write_image(volume, extension, DONE)
    labels = write_labels((voxels > 0).astype(np.uint8), affine, extension)
    for path, expected in ((image, voxels), (labels, voxels > 0)):
        if extension == ".nrrd":
            found = SimpleITK.ReadImage(str(path))
            np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found).T, expected)
            np.testing.assert_allclose(affine_of(found), affine, atol=1e-5)
        else:
            assert path.name.endswith(extension or ".nii.gz")
            loaded = nibabel.load(path)
            np.testing.assert_array_equal(loaded.dataobj, expected)
            np.testing.assert_allclose(loaded.affine, affine, atol=1e-5)


def test_several_volumes_at_once_stay_nifti(tmp_path: Path, new_files: Path) -> None:
    voxels = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(voxels, OBLIQUE), tmp_path / "in.nii")
    volume = next(open_images(tmp_path / "in.nii", Modality.MR))
    np.testing.assert_array_equal(nibabel.load(write_image(volume, None, DONE)).dataobj, voxels)
    with pytest.raises(ValueError, match=r"is written as .nii.gz, .nii, got"):
        write_image(volume, ".nrrd", DONE)
    assert [path.suffix for path in new_files.iterdir()] == [".gz"]  # a refusal leaves no file behind


def test_a_folder_with_two_images_is_refused(tmp_path: Path) -> None:
    for name in ("a.nii", "b.nii"):
        nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4), np.float32), OBLIQUE), tmp_path / name)
    with pytest.raises(ValueError, match="expected one MR image, found 2"):
        only_volume(tmp_path, Modality.MR)
