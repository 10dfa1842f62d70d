"""IXI: subjects by number across the folders of the sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_sasm.datasets import ixi

NAMES = ("IXI002-Guys-0828", "IXI012-HH-1211", "IXI035-IOP-0873", "IXI100-Guys-0747")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """T1 and T2 of four subjects, one T2 missing, and diffusion of the first."""
    for sequence in ("T1", "T2", "DTI"):
        (tmp_path / f"IXI-{sequence}").mkdir()
    for name in NAMES:
        (tmp_path / "IXI-T1" / f"{name}-T1.nii.gz").touch()
        if name != NAMES[1]:
            (tmp_path / "IXI-T2" / f"{name}-T2.nii.gz").touch()
    (tmp_path / "IXI-DTI" / f"{NAMES[0]}-DTI-05.nii.gz").touch()
    (tmp_path / "IXI.xls").touch()
    return tmp_path


def test_subjects_join_their_sequences(root: Path) -> None:
    found = ixi.subjects(root)
    assert [(one.name, one.number, one.site) for one in found] == [
        (NAMES[0], 2, "Guys"), (NAMES[1], 12, "HH"), (NAMES[2], 35, "IOP"), (NAMES[3], 100, "Guys"),
    ]  # fmt: skip
    assert set(found[0].modalities) == {"T1", "T2", "DTI-05"}
    assert [one.number for one in ixi.subjects(root, ["T1", "T2"])] == [2, 35, 100]


def test_files_are_split_by_number_and_hospital(root: Path) -> None:
    assert [Path(path).name[:6] for path in ixi.files(root, "T2", last=35)] == ["IXI002", "IXI035"]
    assert [Path(path).name[:6] for path in ixi.files(root, "T1", ["Guys"], first=3)] == ["IXI100"]
    assert [Path(path).name[:6] for path in ixi.files(root / "IXI-T1", "T1", ["HH"])] == ["IXI012"]


def test_what_is_missing_is_said(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no IXI subject with PD in"):
        ixi.files(root, "PD")
    with pytest.raises(FileNotFoundError, match="no IXI T2 of HH from 0 to the last"):
        ixi.files(root, "T2", ["HH"])
    with pytest.raises(ValueError, match="got 'FLAIR'"):
        ixi.files(root, "FLAIR")
    (root / "copy").mkdir()
    (root / "copy" / f"{NAMES[0]}-T1.nii.gz").touch()
    with pytest.raises(ValueError, match="is there twice"):
        ixi.subjects(root)
