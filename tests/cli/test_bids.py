"""``sasm bids``: the interface of BIDS apps, and derivatives whose names a BIDS validator accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_sasm.cli.main import main


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    root = tmp_path / "raw"
    for name in ("sub-01", "sub-02"):
        (root / name / "anat").mkdir(parents=True)
        noise = np.random.default_rng(0).standard_normal((32, 32, 3))
        image = nibabel.Nifti1Image((400 + 30 * noise).astype(np.int16), np.diag([1.0, 1, 2, 1]))
        nibabel.save(image, root / name / "anat" / f"{name}_T1w.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Heads", "BIDSVersion": "1.10.0"}))
    return root


def run(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bids", *map(str, words)])
    return int(ended.value.code or 0)


def test_one_participant_becomes_valid_derivatives(data_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "derived"
    assert run(data_set, output, "participant", "--participant-label", "02", "--modality", "MR") == 0
    derived = sorted(path.relative_to(output).as_posix() for path in output.rglob("sub-*.*"))
    assert derived == ["sub-02/anat/sub-02_desc-denoised_T1w.json", "sub-02/anat/sub-02_desc-denoised_T1w.nii.gz"]
    description = json.loads((output / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    validator = pytest.importorskip("bids_validator").BIDSValidator()
    assert validator.is_bids("/sub-02/anat/sub-02_T1w.nii.gz")
    assert not validator.is_bids("/sub-02/anat/sub-02_nonsense.nii.gz")
    assert validator.is_bids("/dataset_description.json")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["group"], "must be participant"),
        (["participant", "--participant-label", "09"], "no participant sub-09"),
    ],
)
def test_wrong_use_is_named(data_set: Path, tmp_path: Path, capsys: Any, words: list[str], told: str) -> None:
    assert run(data_set, tmp_path / "derived", *words) == 2
    assert told in capsys.readouterr().err


def test_another_folder_is_no_data_set(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "raw").mkdir()
    assert run(tmp_path / "raw", tmp_path / "derived", "participant") == 2
    assert "no BIDS data set" in capsys.readouterr().err
