"""Pairs of slices from two scans of one head: registered, and compared where nothing but noise differs."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift

from monai_sasm.datasets.repeated import repeated_slices

NOISE = 20.0


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A head ``(24, 64, 64)`` with a bright half, twice, moved, under noise of its own."""
    z, y, x = np.mgrid[:24, :64, :64]
    inside = ((y - 32) / 25) ** 2 + ((x - 32) / 22) ** 2 + ((z - 12) / 30) ** 2 < 1
    head = gaussian_filter(np.where(inside, np.where(x < 32, 500.0, 800.0), 0), (0, 1, 1))
    folder, random = tmp_path_factory.mktemp("repeated"), np.random.default_rng(0)
    paths = []
    for name, moved in (("study1", head), ("study2", shift(head, (0.0, 1.5, -2.0), order=3))):
        real, imaginary = NOISE * random.standard_normal((2, *head.shape))
        scan = np.hypot(moved + real, imaginary).transpose(2, 1, 0).astype(np.float32)
        paths.append(folder / f"{name}_T2W.nii.gz")
        nibabel.save(nibabel.Nifti1Image(scan, np.diag([1, 1, 3.0, 1])), paths[-1])
    return paths


def test_what_is_compared_differs_by_noise_alone(scans: list[Path]) -> None:
    pairs = repeated_slices([scans])
    assert len(pairs) == 48, "each scan in turn"
    scan = np.asarray(nibabel.load(scans[0]).dataobj).transpose(2, 1, 0)
    given = np.stack([noisy[0] for _, noisy in pairs[:24]])
    white = scan.mean() / given.mean()
    np.testing.assert_allclose(given * white, scan, rtol=1e-5, atol=1e-2)
    for wanted, noisy in pairs[6:18]:
        assert wanted.shape == noisy.shape == (1, 64, 64)
        apart = white * (noisy - wanted)[~np.isnan(wanted)]
        assert abs(apart.mean()) < 0.3 * NOISE
        assert NOISE < apart.std() < 1.6 * NOISE, "noise of both; that of the second is a little smoothed"


def test_edges_and_air_are_not_compared(scans: list[Path]) -> None:
    (wanted, _) = repeated_slices([scans])[12]
    known = ~np.isnan(wanted[0])
    assert not known[:5].any()
    assert not known[20:44, 30:34].any(), "where dark meets bright"
    assert known[24:40, 20:26].mean() > 0.5
    more = ~np.isnan(repeated_slices([scans], calm=0.9)[12][0][0])
    assert more.sum() == pytest.approx(known.sum() * 0.9 / 0.5, rel=0.01)


def test_what_cannot_be_compared_is_refused(scans: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"two scans of each head are needed, got \[1\]"):
        repeated_slices([scans[:1]])
    with pytest.raises(ValueError, match="share of tissue that is compared lies in"):
        repeated_slices([scans], calm=0)
    with pytest.raises(FileNotFoundError, match="no slices that can be compared"):
        repeated_slices([scans], least=0.9)
