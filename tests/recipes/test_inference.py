"""Inference of bundles: the modality comes from the files, and nothing to work on is an error, not an empty success."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow
from pydicom.data import get_testdata_file

from monai_sasm.errors import RefusedError
from monai_sasm.recipes.inference import nifti_files, only_modality
from tests.bundle_cases import BUNDLES, clean_image, save
from tests.data import ct_small


def dicom(folder: Path, modality: str) -> Path:
    """One slice of pydicom's test files."""
    folder.mkdir(parents=True, exist_ok=True)
    source = ct_small() if modality == "CT" else get_testdata_file("MR_small.dcm")
    shutil.copy(str(source), folder / f"{modality}.dcm")
    return folder


def cause(error: BaseException) -> BaseException:
    """What MONAI's parser wrapped."""
    return error if error.__cause__ is None else cause(error.__cause__)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_dicom_says_its_modality(modality: str, tmp_path: Path) -> None:
    assert only_modality(dicom(tmp_path, modality)) == modality


def test_photos_are_photos(tmp_path: Path) -> None:
    assert only_modality(save(clean_image("PHOTO", 32), "PHOTO", tmp_path)) == "PHOTO"


def test_nifti_asks_for_the_modality(tmp_path: Path) -> None:
    save(clean_image("MR", 32), "MR", tmp_path)
    with pytest.raises(RefusedError, match="modality='CT' or modality='MR'"):
        only_modality(tmp_path)


def test_a_mixture_asks_for_the_modality(tmp_path: Path) -> None:
    dicom(tmp_path, "CT")
    save(clean_image("PHOTO", 32), "PHOTO", tmp_path)
    with pytest.raises(RefusedError, match=r"images of CT and PHOTO; choose one: --modality CT"):
        only_modality(tmp_path)


def test_without_images_the_network_can_be_looked_at(tmp_path: Path) -> None:
    assert only_modality(tmp_path / "missing") == "PHOTO"
    with pytest.raises(RefusedError, match="no image there"):
        only_modality(tmp_path)


def test_nifti_files_are_found_or_missed(tmp_path: Path) -> None:
    path = save(clean_image("MR", 32), "MR", tmp_path / "in")
    assert nifti_files(path) == nifti_files(path.parent) == [{"image": str(path)}]
    (tmp_path / "note.txt").write_text("nothing")
    with pytest.raises(RefusedError, match="no NIfTI file"):
        nifti_files(tmp_path)
    with pytest.raises(FileNotFoundError, match="check dataset_dir"):
        nifti_files(tmp_path / "missing")


@pytest.mark.parametrize("place", ["empty", "missing", "text"])
@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_nothing_to_work_on_is_refused(bundle: Path, place: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "note.txt").write_text("no image")
    settings = {"dataset_dir": str(tmp_path / place), "output_dir": str(tmp_path / "out")}
    config = str(bundle / "configs" / "inference.yaml")
    workflow = ConfigWorkflow(config_file=config, workflow_type="infer", **settings)
    workflow.initialize()
    with pytest.raises(RuntimeError) as caught:
        workflow.run()
    assert isinstance(cause(caught.value), RefusedError | FileNotFoundError)
    assert str(tmp_path / place) in str(cause(caught.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_no_program_stands_in_a_config(bundle: Path) -> None:
    """What needs more than a short expression has a name in the package."""
    for config in sorted((bundle / "configs").glob("*.yaml")):
        text = config.read_text()
        assert "lambda" not in text, config.name
        expressions = [part for part in text.split('"') if part.startswith("$")]
        assert [part for part in expressions if len(part) > 60] == [], config.name
        assert "handlers#" not in text, "an overlay must not count the handlers of another file"
        assert "handlers::" not in text
