"""Low-dose pairs from phantoms, slices with noise of their own and slices without."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_sasm.degradations.lesions import LesionParams
from monai_sasm.training.dose_range import DoseSource, simulated_doses
from monai_sasm.training.ellipse_phantoms import ellipse_phantoms


def test_phantoms_are_bodies_of_tissue_in_air() -> None:
    images = ellipse_phantoms(2, 96, 3.0, torch.Generator().manual_seed(0))
    assert images.shape == (2, 1, 96, 96)
    assert float(images.min()) >= -1024
    assert float(images[:, :, 0].max()) == -1000
    assert 0 < float(images[:, :, 30:66, 30:66].median()) < 100
    again = ellipse_phantoms(2, 96, 3.0, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


def test_phantoms_are_made_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty ellipses of every phantom at once take 0.14 GB for each of them."""
    largest = []
    field = LesionParams.field.fget
    assert field is not None
    monkeypatch.setattr(LesionParams, "field", property(lambda one: largest.append(len(one.angle)) or field(one)))
    images = ellipse_phantoms(3, 48, 6.0, torch.Generator().manual_seed(0))
    assert largest == [3, 1, 1, 1], "bodies, and the inserts of each"
    assert len({float(image.sum()) for image in images}) == 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small slices, of which one is held out."""
    image = np.full((64, 64, 1), 40, np.int16)
    for name in ("L1_D45f_a", "L1_B30f_b", "L2_D45f_c"):
        nibabel.save(nibabel.Nifti1Image(image, np.diag([5.0, 5.0, 3.0, 1.0])), tmp_path / f"{name}.nii.gz")
    return tmp_path


def test_slices_are_chosen_repeated_and_kept(folder: Path, tmp_path: Path) -> None:
    source = DoseSource(
        [folder], count=3, kernels=["sharp"], named="D45f", exclude=["L2"], dose=(0.1, 0.1), scale=(0.9, 1.1)
    )
    cache = tmp_path / "cache" / "pairs.npz"
    pairs = simulated_doses([source, DoseSource(count=5)], cache, seed=1)
    assert len(pairs) == 3, "one slice three times; a source without paths gives nothing"
    for clean, noisy in pairs:
        assert clean.shape == noisy.shape == (1, 64, 64)
        assert np.all(clean == np.float32(0.04))
        assert 0.002 < float((noisy - clean).std()) < 0.3
    assert not np.array_equal(pairs[0][1], pairs[1][1]), "other noise each time"
    kept = simulated_doses([], cache)
    assert np.array_equal(kept[2][1], pairs[2][1])


def test_clean_slices_get_all_of_the_noise(folder: Path, tmp_path: Path) -> None:
    full = {"dose": (1.0, 1.0), "exposure": (1.0, 1.0), "count": 1}
    missing = simulated_doses([DoseSource([folder], **full)], tmp_path / "a.npz")[0]
    every = simulated_doses([DoseSource([folder], noise_free=True, **full)], tmp_path / "b.npz")[0]
    assert np.array_equal(*missing)
    assert float((every[1] - every[0]).std()) > 0.001


def test_a_cache_of_other_settings_is_told(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = tmp_path / "pairs.npz"
    for source in (DoseSource([folder], count=1), DoseSource([str(folder)], count=1)):
        simulated_doses([source], cache)
    assert not caplog.records
    simulated_doses([DoseSource([folder], count=1, exclude=["L2"])], cache)
    assert "pairs.npz was made with other settings (sources) and is used as it is" in caplog.text


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    image = np.where(np.mgrid[:64, :64, :1][0] > 20, 40, -1000).astype(np.int16)
    image[30:40, 30:40] = 90
    nibabel.save(nibabel.Nifti1Image(image, np.diag([0.5, 1.0, 3.0, 1.0])), tmp_path / "oblong.nii.gz")
    with pytest.raises(ValueError, match=r"oblong: the dose model needs square pixels, got 0\.500 x 1\.000 mm"):
        simulated_doses([DoseSource([tmp_path / "oblong.nii.gz"], count=1)], tmp_path / "pairs.npz")
