"""Photos, slices and volumes as the protocols expect them, a few pixels wide."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from monai_sasm.evaluation.context import Context
from tests.evaluation.networks import blurring

PHOTOS = {
    "natural/bsds500/val": ("a.jpg", "b.jpg"),
    "natural/bsds500/test": ("c.jpg",),
    "natural/set12": ("01.png",),
    "natural/cc15": ("a_mean.png", "a_real.png"),
    "raindrop/pairs/data": ("0_rain.png", "1_rain.png"),
    "raindrop/pairs/gt": ("0_clean.png", "1_clean.png"),
}
CT = {
    "L096_dicom": ("L096_D45f_i021",),
    "L192_nifti": ("L192_B30f_i078", "L192_D45f_i076"),
    "L143_nifti": ("L143_B30f_i115", "L143_D45f_i106"),
}
MR = ("ms_patient04/study1_FLAIR", "ms_patient20/study1_T1W")


@pytest.fixture(autouse=True)
def without_feature_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances of VGG19 features would take most of the time; they have tests of their own."""
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Data of all modalities, experts that blur, and a gate that trusts all alike; no peers."""
    data, random = tmp_path / "data", np.random.default_rng(0)
    for folder, names in PHOTOS.items():
        (data / folder).mkdir(parents=True)
        for name in names:
            scene = gaussian_filter(random.random((48, 64, 3)), (4, 4, 0))
            pixels = (255 * (scene - scene.min()) / np.ptp(scene)).astype(np.uint8)
            Image.fromarray(pixels[..., 0] if "set12" in folder else pixels).save(data / folder / name)
    (data / "natural/cbsd68_ids.txt").write_text("b\na\n")
    rows, columns = np.mgrid[:96, :96] - 47.5
    body = np.where(np.hypot(rows, columns) < 44, 60.0, -1000.0)
    for folder, names in CT.items():
        for kind, noise in (("full", 10.0), ("quarter", 20.0)):
            for name in names:
                image = np.round(body + random.normal(0, noise, body.shape)).astype(np.int16)[..., None]
                _save(image, data / "ct_ldct_pairs" / folder / kind / f"{name}.nii.gz")
    for name in MR:
        scene = 200 + 800 * gaussian_filter(random.random((48, 48, 16)), (3, 3, 1))
        scene *= ((np.arange(48) - 3) / 16).clip(0, 1)[:, None]  # the head rises from a background of zeros
        _save(scene.astype(np.int16), data / "mri" / f"{name}.nii.gz")
    return Context(data, tmp_path / "docs" / "results", "cpu", peers=False, bundles=blurring())


def _save(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.8, 0.8, 3, 1])), path)
