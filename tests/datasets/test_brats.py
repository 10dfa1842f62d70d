"""BraTS folders of every year: found, ordered, renumbered to one set of labels, and refused with what is missing."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_sasm.datasets import brats
from tests.data import shared

ALL = ("t1", "t1ce", "t2", "flair")


def subject(
    root: Path, name: str, kinds: tuple[str, ...] = (*ALL, "seg"), mark: str = "_", end: str = "nii.gz"
) -> Path:
    """A folder of empty files named as BraTS names them."""
    folder = root / name
    folder.mkdir(parents=True)
    for kind in kinds:
        (folder / f"{name}{mark}{kind}.{end}").touch()
    return folder


@pytest.fixture
def years(tmp_path: Path) -> Path:
    """One subject of each naming, and a folder of something else."""
    subject(tmp_path / "HGG", "Brats18_2013_10_1")
    subject(tmp_path / "LGG", "Brats18_2013_2_1")
    subject(tmp_path, "BraTS20_Training_001", end="nii")
    subject(tmp_path, "BraTS2021_00000")
    subject(tmp_path, "BraTS-GLI-00005-000", ("t1n", "t1c", "t2w", "t2f", "seg"), mark="-")
    deepmedic = tmp_path / "brats_2013_pat0001_1"
    deepmedic.mkdir()
    for name in ("Flair_subtrMeanDivStd", "T1c_subtrMeanDivStd", "OTMultiClass", "brainmask"):
        (deepmedic / f"{name}.nii.gz").touch()
    other = tmp_path / "PGBM-003"
    other.mkdir()
    (other / "T2.nii.gz").touch()
    (other / "patient_FLAIR.nii.gz").touch()
    return tmp_path


def test_every_year_is_found_in_natural_order(years: Path) -> None:
    found = brats.subjects(years)
    assert [(one.name, one.year) for one in found] == [
        ("Brats18_2013_2_1", 2018),
        ("Brats18_2013_10_1", 2018),
        ("BraTS20_Training_001", 2020),
        ("BraTS2021_00000", 2021),
        ("BraTS-GLI-00005-000", 2023),
        ("brats_2013_pat0001_1", 2015),
    ]
    by_name = {one.name: one for one in found}
    assert list(by_name["BraTS-GLI-00005-000"].modalities) == list(ALL)
    assert by_name["BraTS-GLI-00005-000"].modalities["t1ce"].name == "BraTS-GLI-00005-000-t1c.nii.gz"
    assert by_name["BraTS20_Training_001"].modalities["t1"].name == "BraTS20_Training_001_t1.nii"
    deepmedic = by_name["brats_2013_pat0001_1"]
    assert list(deepmedic.modalities) == ["t1ce", "flair"]
    assert deepmedic.label == years / "brats_2013_pat0001_1" / "OTMultiClass.nii.gz"
    assert deepmedic.brain == years / "brats_2013_pat0001_1" / "brainmask.nii.gz"
    assert by_name["BraTS2021_00000"].brain is None


def test_the_label_of_2020_with_another_name_is_found(tmp_path: Path) -> None:
    folder = subject(tmp_path, "BraTS20_Training_355", ALL, end="nii")
    (folder / "W39_1998.09.19_Segm.nii").touch()
    (found,) = brats.subjects(tmp_path)
    assert found.label == folder / "W39_1998.09.19_Segm.nii"


def test_what_is_missing_is_named(years: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"brats_2013_pat0001_1 has no t1, t2; it has t1ce, flair, seg"):
        brats.subjects(years, require=ALL)
    with pytest.raises(ValueError, match="BraTS has t1, t1ce, t2, flair and seg, got adc"):
        brats.subjects(years, require=["adc"])
    with pytest.raises(FileNotFoundError, match=r"no BraTS subject in .*expected folders like BraTS2021_00000"):
        brats.subjects(years / "PGBM-003")
    with pytest.raises(FileNotFoundError, match="not a folder"):
        brats.subjects(years / "absent")


def test_ambiguous_folders_are_refused(tmp_path: Path) -> None:
    folder = subject(tmp_path, "BraTS2021_00001")
    (folder / "BraTS2021_00001_flair.nii").touch()
    with pytest.raises(ValueError, match="two files of flair"):
        brats.subjects(tmp_path)
    (folder / "BraTS2021_00001_flair.nii").unlink()
    subject(tmp_path / "copy", "BraTS2021_00001")
    with pytest.raises(ValueError, match="two folders are named BraTS2021_00001"):
        brats.subjects(tmp_path)


def test_the_datalist_gives_channels_in_the_order_asked(years: Path) -> None:
    listed = brats.datalist(years, ("flair", "t1ce"), exclude=["BraTS2021_00000", "brats_2013_pat0001_1"])
    assert [item["name"] for item in listed][:2] == ["Brats18_2013_2_1", "Brats18_2013_10_1"]
    assert [Path(path).name for path in listed[-1]["image"]] == [
        "BraTS-GLI-00005-000-t2f.nii.gz",
        "BraTS-GLI-00005-000-t1c.nii.gz",
    ]
    assert listed[-1]["year"] == 2023
    assert "label" not in brats.datalist(years, ("flair",), labelled=False)[0]
    with pytest.raises(FileNotFoundError, match="no subject named BraTS2021_0"):
        brats.datalist(years, ("flair",), exclude=["BraTS2021_0"])


@pytest.mark.parametrize(
    ("year", "given", "expected"),
    [
        (2018, [0, 1, 2, 4], [0, 1, 2, 4]),
        (None, [4, 0], [4, 0]),
        (2015, [0, 1, 2, 3, 4], [0, 1, 2, 1, 4]),
        (2023, [0, 1, 2, 3], [0, 1, 2, 4]),
        (2015, [0.9999, 3.0001], [1, 1]),
    ],
)
def test_labels_of_all_years_become_those_of_2018(year: int | None, given: list[float], expected: list[int]) -> None:
    assert brats.unified(np.array(given), year).tolist() == expected


@pytest.mark.parametrize(("year", "label"), [(2018, 3), (2023, 4), (2021, 7)])
def test_a_label_the_year_has_not_is_refused(year: int, label: int) -> None:
    with pytest.raises(ValueError, match=rf"BraTS {year} has the labels .* got \[{label}\]"):
        brats.unified(np.array([0, label]), year)


def test_labels_are_read_and_renumbered(tmp_path: Path) -> None:
    folder = subject(tmp_path, "BraTS-GLI-00007-001", ("t1c", "seg"), mark="-")
    label = np.zeros((3, 4, 5), np.int16)
    label[1, 2, 3] = 3
    nibabel.save(nibabel.Nifti1Image(label, np.eye(4)), folder / "BraTS-GLI-00007-001-seg.nii.gz")  # type: ignore[attr-defined]
    (found,) = brats.subjects(tmp_path)
    assert brats.read_labels(found)[1, 2, 3] == 4
    meta = MetaTensor(torch.from_numpy(label.astype(np.float32))[None], affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    renumbered = brats.UnifyBratsLabelsd("label")({"label": meta, "year": 2023})["label"]
    assert float(renumbered[0, 1, 2, 3]) == 4
    assert float(meta[0, 1, 2, 3]) == 3, "the input is left alone"
    assert float(renumbered.affine[0, 0]) == 2


def test_the_real_sets_are_read() -> None:
    found = brats.subjects(shared("brats"), require=["t1ce", "flair", "seg"])
    assert [one.year for one in found] == [2018, 2015, 2015, 2015]
    labels = brats.read_labels(found[0])
    assert labels.shape == (240, 240, 155)
    assert {value: int((labels == value).sum()) for value in (1, 2, 4)} == {1: 4514, 2: 34894, 4: 21677}


def test_some_subjects_are_held_out_where_none_is_named(years: Path) -> None:
    assert brats.held_out(years) == ["Brats18_2013_2_1", "brats_2013_pat0001_1"], "every fifth"
    assert brats.held_out(years, exclude=["Brats18_2013_2_1"]) == ["Brats18_2013_10_1"]
    assert brats.held_out(years, ["BraTS2021_00000"]) == ["BraTS2021_00000"]
    with pytest.raises(FileNotFoundError, match="no subject named Brats99"):
        brats.held_out(years, exclude=["Brats99"])
    with pytest.raises(FileNotFoundError, match="must hold a subject to train on"):
        brats.held_out(years / "HGG")
