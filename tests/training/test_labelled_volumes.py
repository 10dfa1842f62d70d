"""Lists of labelled cases: split by number, by patient, and refused with the layout that is expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_sasm.training.labelled_volumes import labelled_slices, labelled_volumes


def decathlon(folder: Path, numbers: list[int], suffix: str = "") -> Path:
    """Empty files named as in the Medical Segmentation Decathlon; case 4 has no label."""
    for kind in ("images", "labels"):
        (folder / f"{kind}{suffix}").mkdir(parents=True)
        for number in numbers:
            if (kind, number) != ("labels", 4):
                (folder / f"{kind}{suffix}" / f"hippocampus_{number:03d}.nii.gz").touch()
    return folder


@pytest.mark.parametrize("suffix", ["", "Tr"])
def test_cases_are_split_by_number_and_need_a_label(tmp_path: Path, suffix: str) -> None:
    folder = decathlon(tmp_path, [1, 3, 4, 210, 211], suffix)
    pairs = labelled_volumes(folder, 2, 210)
    assert [Path(pair["image"]).name for pair in pairs] == ["hippocampus_003.nii.gz", "hippocampus_210.nii.gz"]
    assert all(Path(pair["label"]).parent.name == f"labels{suffix}" for pair in pairs)
    assert len(labelled_volumes(folder)) == 4
    with pytest.raises(FileNotFoundError, match="no cases 0 to 0 "):
        labelled_volumes(folder, 0, 0)


def test_an_empty_range_names_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no cases 5 to 9 .* expected images/NAME"):
        labelled_volumes(decathlon(tmp_path, [1]), 5, 9)


def test_slices_carry_image_label_and_patient(tmp_path: Path) -> None:
    for index, patient in enumerate(("a", "b", "c")):
        image = np.full((index + 1, 4, 5), index, np.uint8)
        np.savez(tmp_path / f"{patient}.npz", image=image, label=image > 0)
    slices = labelled_slices(tmp_path, exclude=["c"])
    assert [entry["patient"] for entry in slices] == ["a", "b", "b"]
    assert slices[1]["image"].shape == (1, 4, 5)
    assert slices[1]["image"].dtype == np.float32
    assert slices[1]["image"].mean() == slices[1]["label"].mean() == 1
    assert [entry["patient"] for entry in labelled_slices(tmp_path, include=["c"])] == ["c"] * 3


def test_a_missing_patient_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((1, 2, 2)), label=np.zeros((1, 2, 2)))
    with pytest.raises(FileNotFoundError, match="missing: \\['z'\\]"):
        labelled_slices(tmp_path, include=["a", "z"])
    with pytest.raises(FileNotFoundError, match=r"no patient of .* is chosen, of 1"):
        labelled_slices(tmp_path, include=[])
