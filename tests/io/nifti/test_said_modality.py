"""What a file says itself of its modality comes before what is said of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from monai_sasm.io.formats import inventory
from monai_sasm.types import Modality


def write(folder: Path, name: str, sidecar: object = None) -> None:
    voxels = np.random.default_rng(0).uniform(10, 1000, (24, 24, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1, 3, 1])), folder / f"{name}.nii.gz")
    if sidecar is not None:
        (folder / f"{name}.json").write_text(json.dumps({"Modality": sidecar}))


@pytest.mark.parametrize(
    ("name", "sidecar", "found"),
    [
        ("plain", None, Modality.MR),
        ("sub-01_ct", None, Modality.CT),
        ("head", "CT", Modality.CT),
        ("head", "MR", Modality.MR),
        ("sub-01_T1w", "CT", Modality.MR),
        ("head", 5, Modality.MR),
    ],
)
def test_the_file_is_asked_first(name: str, sidecar: object, found: Modality, tmp_path: Path) -> None:
    write(tmp_path, name, sidecar)
    write(tmp_path, "z-another")
    entry, another = inventory(tmp_path, Modality.MR)
    assert entry.modality is found
    assert entry.refusal is another.refusal is None


@pytest.mark.parametrize(
    ("name", "sidecar", "reason"),
    [
        ("sub-01_trc-FDG_pet", None, "its name says that it is PET"),
        ("sub-01_meg", None, "its name says that it is MEG"),
        ("SUV", "PT", "its sidecar says that its modality is 'PT'"),
    ],
)
def test_what_no_expert_is_for_is_refused(name: str, sidecar: object, reason: str, tmp_path: Path) -> None:
    write(tmp_path, name, sidecar)
    (entry,) = inventory(tmp_path, Modality.MR)
    assert reason in str(entry.refusal)


def test_a_sidecar_alone_says_what_made_an_image(tmp_path: Path) -> None:
    write(tmp_path, "head", "MR")
    (entry,) = inventory(tmp_path)
    assert entry.modality is Modality.MR
    assert entry.refusal is None
