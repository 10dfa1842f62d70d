"""An expert's own ``inference.yaml`` and ``sasm restore --expert`` are the same restoration."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import run
from numpy.typing import NDArray

from monai_sasm import Restorer
from monai_sasm.io.formats import open_images
from tests.bundle_cases import ROOT

SIDE, RADIUS = 96, np.hypot(*(np.mgrid[:96, :96] - 48.0))


def padded_ct() -> NDArray[np.int16]:
    """A body with metal, air around it, and -2000 outside of a round field of view."""
    random = np.random.default_rng(0)
    body = np.where(RADIUS < 34, 40, -1000) + 30 * random.standard_normal((SIDE, SIDE))
    body[44:48, 44:48] = 12000
    return np.where(RADIUS < 45, body, -2000).astype(np.int16)


def stripped_brain() -> NDArray[np.int16]:
    """Tissue with noise on exact zeros."""
    random = np.random.default_rng(1)
    tissue = np.abs(300 + 60 * np.cos(np.arange(SIDE) / 9) + 25 * random.standard_normal((SIDE, SIDE)))
    return np.where(RADIUS < 40, tissue, 0).astype(np.int16)


@pytest.mark.parametrize(
    ("name", "modality", "image", "background"),
    [
        ("lowdose_ct_unet", "CT", padded_ct(), -2000),
        ("lowdose_ct_esrgan", "CT", padded_ct(), -2000),
        ("noise_mri_unet", "MR", stripped_brain(), 0),
        ("superres_mri_unet", "MR", stripped_brain(), 0),
    ],
)
def test_a_bundle_run_restores_as_the_command_does(
    tmp_path: Path, name: str, modality: str, image: NDArray[np.int16], background: int
) -> None:
    source = tmp_path / "in" / "image.nii.gz"
    source.parent.mkdir()
    stack = np.stack([image, image[::-1], image], 2)
    nibabel.save(nibabel.Nifti1Image(stack, np.diag([0.9, 0.9, 5.0, 1.0])), source)
    config = ROOT / "bundles" / name / "configs" / "inference.yaml"
    where = {"dataset_dir": str(source.parent), "output_dir": str(tmp_path / "out")}
    run(run_id="run", config_file=str(config), precision="float32", device="$torch.device('cpu')", **where)
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    found = np.asarray(nibabel.load(written).dataobj).astype(np.float32)
    (volume,) = open_images(source, modality)
    expected = Restorer("cpu", precision="float32")(volume, expert=name).volume.array[0]
    assert np.abs(found - expected).max() < 1.01, "the file is rounded to whole numbers"
    assert np.abs(expected - stack)[stack != background].max() > 5
    outside = stack == background
    assert outside.mean() > 0.2
    np.testing.assert_array_equal(found[outside], background)
    assert found.min() >= background
