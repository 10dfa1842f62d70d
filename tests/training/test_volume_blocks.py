"""Blocks of volumes: shapes, neighbours in their order, and targets that belong to their input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr
from monai_sasm.degradations.lesion_balls import LesionBalls
from monai_sasm.degradations.thick_slices import ThickSlices
from monai_sasm.training.volume_blocks import MARGIN, VolumeBlocks, volumes

NONE = LowQualityMr(KspaceTruncation((1.0, 1.0)), KspaceNoise((0.0, 0.0)))
HALF = LowQualityMr(KspaceTruncation((2.0, 2.0)), KspaceNoise((0.0, 0.02)))


def volume(seed: int = 0) -> np.ndarray:
    """Noise, ``(30, 34, 38)``."""
    return np.random.default_rng(seed).random((30, 34, 38)).astype(np.float16)


def blocks(degradation: LowQualityMr, **options: Any) -> VolumeBlocks:
    """Small ones."""
    settings: dict[str, Any] = {
        "blocks": 2,
        "depth": 3,
        "cuts": 2,
        "size": 16,
        "length": 48,
        "neighbours": 2,
        "alone": 0.0,
    }
    return VolumeBlocks([volume()], [degradation], **(settings | options))


def test_batches_have_slabs_and_their_middle_slices() -> None:
    data = blocks(NONE)
    assert len(data) == 4
    batch = data[0]
    assert batch["clean"].shape == (12, 1, 16, 16)
    assert batch["noisy"].shape == (12, 5, 16, 16)
    assert torch.equal(batch["noisy"][:, 2:3], batch["clean"])
    assert torch.equal(batch["noisy"][0, 3:4], batch["clean"][1]), "the next slice of a block is the next neighbour"
    assert torch.equal(batch["noisy"][1, 1], batch["noisy"][0, 2])
    with pytest.raises(IndexError):
        data[4]


@pytest.mark.parametrize("turned", [True, False])
def test_blocks_that_are_not_turned_are_degraded_along_their_rows(turned: bool) -> None:
    data = blocks(ThickSlices((4.0, 4.0)), turned=turned)  # type: ignore[arg-type]
    seen = torch.cat([data[index]["noisy"][:, 2] for index in range(4)])
    smooth = seen.diff(dim=1).abs().mean((1, 2)) < seen.diff(dim=2).abs().mean((1, 2))
    assert bool(smooth.all()) != turned
    assert bool(smooth.any())


def test_the_degraded_slices_differ_and_are_drawn_anew() -> None:
    first, again, other = blocks(HALF)[0], blocks(HALF)[0], blocks(HALF, seed=1)[0]
    assert torch.equal(first["noisy"], again["noisy"])
    assert not torch.equal(first["noisy"], other["noisy"])
    error = first["noisy"][:, 2:3] - first["clean"]
    assert 0.05 < float(error.std()) < 0.5
    data = blocks(HALF)
    assert not torch.equal(data[0]["clean"], data[0]["clean"])


def test_neighbours_may_be_withheld() -> None:
    noisy = blocks(HALF, alone=1.0)[0]["noisy"]
    assert torch.equal(noisy, noisy[:, 2:3].expand_as(noisy))


def test_cuts_come_without_and_with_the_same_lesions() -> None:
    lesions = LesionBalls((0.2, 0.4), tissue=(0.0, 2.0), density=2e-3)
    batch = blocks(NONE, lesions=lesions)[0]
    assert batch["clean"].shape == (24, 1, 16, 16)
    assert batch["noisy"].shape == (24, 5, 16, 16)
    plain, with_lesions = batch["clean"].chunk(2)
    added = with_lesions - plain
    assert 0.005 < float((added.abs() > 0.1).float().mean()) < 0.3
    torch.testing.assert_close(batch["noisy"][:, 2:3], batch["clean"])
    torch.testing.assert_close(batch["noisy"][12, 3:4], batch["clean"][13], msg="neighbours have their lesions too")
    noisy = blocks(HALF, lesions=lesions)[0]["noisy"]
    away = (noisy[12:] - noisy[:12])[:, 2].abs().amin((1, 2))
    assert float(away.max()) < 0.02, "both halves have the same noise"


def test_volumes_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="volumes of at least 64 voxels along each axis"):
        blocks(NONE, size=64)


def test_volumes_that_are_left_out_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    blocks(NONE)
    assert not caplog.records
    mixed = VolumeBlocks([volume(), np.zeros((30, 34, 9), np.float16)], [NONE], depth=3, size=16)
    assert len(mixed.images) == 1
    assert "left out: 1 of 2 volumes have fewer than 16 voxels along an axis" in caplog.text


def test_volumes_are_read_scaled_and_cut_to_the_head(tmp_path: Path) -> None:
    array = np.zeros((60, 64, 70), np.int16)
    array[20:40, 16:48, 30:40] = np.random.default_rng(0).integers(50, 500, (20, 32, 10))
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "sub-01.nii.gz")
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "sub-02.nii.gz")
    found = volumes([tmp_path], exclude=["sub-02"])
    assert len(found) == 1
    assert sorted(found[0].shape) == sorted((20 + 2 * MARGIN, 32 + 2 * MARGIN, 10 + 2 * MARGIN))
    assert float(found[0].max()) == pytest.approx(1.0, abs=0.2)
    with pytest.raises(FileNotFoundError, match="no MR volume"):
        volumes([tmp_path], exclude=["sub"])
