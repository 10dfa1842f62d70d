"""Batches degraded anew: whole slices, neighbours, one shape each, the same draws for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr, to_kspace
from monai_sasm.degradations.lesion_balls import LesionBalls
from monai_sasm.training.degraded import DegradedBatches, degraded_pairs

RANDOM = np.random.default_rng(0)
VOLUMES = [RANDOM.uniform(0, 1, (9, *size)).astype(np.float32) for size in ((20, 24), (16, 30))]
SLABS = [volume[start : start + 3] for volume in VOLUMES for start in range(7)]


def halved(sigma: float = 0.0) -> LowQualityMr:
    return LowQualityMr(KspaceTruncation(factor=(2.0, 2.0)), KspaceNoise(sigma=(sigma, sigma)))


def batches(**settings: object) -> DegradedBatches:
    return DegradedBatches(
        **{"images": SLABS, "degradations": [halved()], "batch": 4, "length": 20, "size": 64} | settings
    )  # type: ignore[arg-type]


def sampled_columns(image: torch.Tensor) -> int:
    """How many columns of k-space hold energy."""
    energy = to_kspace(image).abs().square().mean((0, 1, 2))
    return int((energy > 1e-4 * energy.max()).sum())


def test_batches_are_whole_slices_of_one_shape_between_their_neighbours() -> None:
    data = batches(neighbours=1, alone=0.0)
    assert len(data) == 5
    seen = set()
    for index in range(5):
        batch = data[index]
        clean, noisy = batch["clean"], batch["noisy"]
        assert clean.shape[:2] == (4, 1)
        assert noisy.shape == (4, 3, *clean.shape[2:])
        seen.add(tuple(sorted(clean.shape[2:])))
        for one, slab in zip(clean, noisy, strict=True):
            whole = torch.cat([one, one])
            assert float((slab[1] - one).abs().max()) > 0.01, "detail is gone"
            assert float(slab[1].mean()) == pytest.approx(float(whole.mean()), abs=0.02), "the rest is not"
    assert seen == {(20, 24), (16, 30)}
    with pytest.raises(IndexError):
        data[5]


def test_whole_slices_are_truncated_before_they_are_cut() -> None:
    wide = [RANDOM.uniform(0, 1, (1, 64, 64)).astype(np.float32)]
    whole = DegradedBatches(wide, [halved()], batch=1, length=1, size=64)[0]["noisy"]
    assert sampled_columns(whole) == 31
    cut = DegradedBatches(wide, [halved()], batch=1, length=1, size=16)[0]
    assert cut["clean"].shape == cut["noisy"].shape == (1, 1, 16, 16)


def test_noise_is_drawn_anew_and_depends_on_the_seed_alone() -> None:
    settings = {"images": SLABS[:1], "degradations": [halved(0.1)], "batch": 1, "neighbours": 1, "alone": 0.0}
    data, same, other = batches(**settings), batches(**settings), batches(**settings, seed=1)
    first, second = data[0], data[1]
    assert not torch.equal(first["noisy"].sort().values, second["noisy"].sort().values)
    assert torch.equal(first["noisy"], same[0]["noisy"])
    assert not torch.equal(first["noisy"], other[0]["noisy"])


def test_slices_come_without_and_with_the_same_lesions() -> None:
    lesions = LesionBalls((0.2, 0.4), tissue=(0.0, 2.0), density=5e-3)
    identity = LowQualityMr(KspaceTruncation(factor=(1.0, 1.0)), KspaceNoise(sigma=(0.0, 0.0)))
    batch = batches(degradations=[identity], neighbours=1, alone=0.0, lesions=lesions)[0]
    assert len(batch["clean"]) == len(batch["noisy"]) == 8
    torch.testing.assert_close(batch["noisy"][:, 1:2], batch["clean"])
    added = batch["noisy"][4:] - batch["noisy"][:4]
    assert 0.005 < float((added.abs() > 0.1).float().mean()) < 0.4


def test_neighbours_are_withheld_from_a_share() -> None:
    for batch in (batches(neighbours=1, alone=1.0)[index] for index in range(3)):
        torch.testing.assert_close(batch["noisy"], batch["noisy"][:, 1:2].expand(-1, 3, -1, -1))
    data = batches(neighbours=1, alone=0.3, length=800)
    alone = [bool((one["noisy"][:, 0] == one["noisy"][:, 1]).all()) for one in (data[index] for index in range(200))]
    assert np.mean(alone) == pytest.approx(0.3, abs=0.12)


def test_pairs_are_taken_as_they_are() -> None:
    clean = [RANDOM.uniform(0, 1, (1, 8, 8)).astype(np.float32) for _ in range(6)]
    pairs = [(image, image + 1) for image in clean]
    batch = batches(images=pairs, degradations=None, neighbours=2)[0]
    torch.testing.assert_close(batch["noisy"], (batch["clean"] + 1).expand(-1, 5, -1, -1))
    with pytest.raises(ValueError, match=r"pairs \(clean, noisy\), got 14 images and 0 degradations"):
        batches(degradations=None)
    with pytest.raises(ValueError, match="got 7 images and 1 degradations"):
        batches(images=[*pairs, clean[0]])
    with pytest.raises(ValueError, match="got 0 images"):
        batches(images=[])


def test_the_noisy_image_of_a_pair_is_degraded_further() -> None:
    """The clean one stays, NaN where it is not known; lesions are in both."""
    clean = [RANDOM.uniform(0.4, 0.8, (1, 32, 32)).astype(np.float32) for _ in range(6)]
    known = np.where(np.arange(32) < 20, 1, np.nan).astype(np.float32)
    lesions = LesionBalls((0.2, 0.4), tissue=(0.0, 2.0), density=5e-3)
    settings = {
        "images": [(image * known, image + 1) for image in clean],
        "neighbours": 1,
        "size": 32,
        "lesions": lesions,
    }
    batch = batches(degradations=[KspaceNoise(sigma=(0.3, 0.3))], **settings)[0]
    missing = batch["clean"].isnan()
    assert float(missing.float().mean()) == 12 / 32
    apart = (batch["noisy"][:, 1:2] - batch["clean"])[~missing]
    assert float(apart.mean()) == pytest.approx(1, abs=0.05)
    assert float(apart.std()) == pytest.approx(0.3, rel=0.1)
    half = len(batch["clean"]) // 2
    (added, asked) = (one[half:] - one[:half] for one in (batch["noisy"][:, 1:2], batch["clean"]))
    torch.testing.assert_close(added[~missing[:half]], asked[~missing[:half]], atol=0.05, rtol=0)
    assert 0.005 < float((asked.abs() > 0.1).float().mean()) < 0.4


def test_pairs_keep_the_neighbours_that_they_have() -> None:
    """Some volumes have close slices, others none."""
    pairs = [(slab[1:2], slab) for slab in SLABS[:4]] + [(slab[1:2], slab[1:2]) for slab in SLABS[4:7]]
    data = batches(images=pairs, degradations=None, neighbours=1, alone=0.0)
    shown = [bool((batch["noisy"][:, 0] != batch["noisy"][:, 1]).any()) for batch in (data[n] for n in range(5))]
    assert set(shown) == {True, False}
    assert {data[n]["noisy"].shape[1] for n in range(5)} == {3}
    fitted = degraded_pairs(pairs, [], neighbours=1)
    assert [(clean.shape[0], noisy.shape[0]) for clean, noisy in fitted] == [(1, 3)] * 7
    np.testing.assert_array_equal(fitted[0][1], SLABS[0])
    np.testing.assert_array_equal(fitted[4][1], np.repeat(SLABS[4][1:2], 3, 0))


def test_flat_batches_are_passed_over() -> None:
    flat = [np.zeros((1, 8, 8), np.float32)] * 20 + [RANDOM.uniform(0, 1, (1, 8, 9)).astype(np.float32)] * 20
    data = batches(images=flat, batch=1, length=30, min_std=0.1)
    assert all(float(data[index]["clean"].std()) > 0.1 for index in range(20))


def test_mirrored_slices_have_no_border() -> None:
    """A slope jumps where it comes round, and a truncated jump rings; its mirror image continues without one."""
    slope = [np.tile(np.linspace(0, 1, 24, dtype=np.float32), (24, 1))[None]] * 4
    settings = {"images": slope, "batch": 1, "length": 40, "size": 64}

    def rings(mirrored: float) -> float:
        data = batches(**settings, mirrored=mirrored)
        cuts = [data[index] for index in range(40)]
        assert {tuple(cut["clean"].shape) for cut in cuts} == {(1, 1, 24, 24)}
        return max(float((cut["noisy"] - cut["clean"]).abs().max()) for cut in cuts)

    assert rings(0.0) > 0.2
    assert rings(1.0) < 0.05


def test_small_slices_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    slices = [np.random.default_rng(0).random((1, side, 32), np.float32) for side in (32, 16)]
    assert len(degraded_pairs(slices, [KspaceNoise((0.1, 0.1))], min_size=24)) == 1
    assert "left out: 1 of 2 slices are less than 24 pixels wide or high" in caplog.text
