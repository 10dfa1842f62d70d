"""What the trainer sees: degraded input, target with weights, the right noise map, the same validation every time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.datasets.draws import begin_epoch
from monai_sasm.degradations.gaussian import GaussianNoise
from monai_sasm.degradations.kspace import KspaceNoise
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.recipes.images import with_measured
from monai_sasm.training.batches import OneOf, PrepareDegraded, PreparePaired

CLEAN = {"image": torch.full((4, 1, 64, 64), 0.5)}


def test_degraded_crops_come_with_their_true_noise_map() -> None:
    noisy, target, (sigma,), keywords = PrepareDegraded(GaussianNoise(sigma=(0.1, 0.1)))(CLEAN)
    assert torch.equal(target, CLEAN["image"])
    assert float((noisy - target).std()) == pytest.approx(0.1, rel=0.05)
    assert torch.allclose(sigma, torch.full((4, 1, 64, 64), 0.1))
    assert keywords == {}


def test_no_map_for_networks_without_one() -> None:
    assert PrepareDegraded(GaussianNoise(), pass_sigma=False)(CLEAN)[2] == ()


def test_a_share_of_the_maps_is_estimated() -> None:
    noise = GaussianNoise(sigma=(0.1, 0.1))
    maps = [
        PrepareDegraded(noise, noise_estimator=NoiseEstimator(), estimated=share)(CLEAN)[2][0] for share in (0.0, 1.0)
    ]
    assert float(maps[0].std()) < 1e-6
    assert float(maps[1].std()) > 1e-4
    assert float(maps[1].mean()) == pytest.approx(0.1, rel=0.15)
    with pytest.raises(ValueError, match="noise_estimator"):
        PrepareDegraded(noise, estimated=0.5)


def test_grey_pictures_have_grey_noise() -> None:
    colour = {"image": torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))}
    noisy, target, *_ = PrepareDegraded(GaussianNoise(sigma=(0.1, 0.1)), grey=1.0)(colour)
    torch.testing.assert_close(target, colour["image"].mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert float((noisy - noisy[:, :1]).abs().max()) < 1e-6
    assert float((noisy - target).std()) == pytest.approx(0.1, rel=0.1)
    noisy, target, *_ = PrepareDegraded(GaussianNoise(sigma=(0.1, 0.1)), grey=0.5, seed=1)(colour)
    grey = ((target - target[:, :1]).abs().amax((1, 2, 3)) < 1e-6).sum()
    assert 1 <= int(grey) <= 7


def test_measured_pairs_among_clean_images_are_taken_as_they_are() -> None:
    clean, noisy = CLEAN["image"], CLEAN["image"].clone()
    noisy[1] += 0.2 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(0))
    prepare = PrepareDegraded(GaussianNoise(sigma=(0.1, 0.1)), noise_estimator=NoiseEstimator())
    degraded, target, (sigma,), _ = prepare({"image": clean, "noisy": noisy})
    assert torch.equal(degraded[1], noisy[1])
    assert torch.equal(target, clean)
    assert float((degraded - clean)[[0, 2, 3]].std()) == pytest.approx(0.1, rel=0.05)
    assert torch.equal(sigma[1:2], NoiseEstimator()(noisy[1:2]))
    torch.testing.assert_close(sigma[[0, 2, 3]], torch.full((3, 1, 64, 64), 0.1))
    with pytest.raises(ValueError, match="noise_estimator"):
        PrepareDegraded(GaussianNoise())({"image": clean, "noisy": noisy})


def test_measured_pairs_get_their_share_of_the_draws() -> None:
    clean = [np.full((3, 8, 8), level, np.uint8) for level in range(6)]
    pairs = [(np.zeros((3, 8, 8), np.float32), np.full((3, 8, 8), shift, np.float32)) for shift in (0.1, 0.2, 0.3)]
    mixed = with_measured(clean, pairs, 0.4)
    assert [noisy is image for image, noisy in mixed] == [True] * 6 + [False] * 4
    assert [float(noisy[0, 0, 0]) for _, noisy in mixed[6:]] == pytest.approx([0.1, 0.2, 0.3, 0.1])
    assert with_measured(clean, [], 0.0) == [(image, image) for image in clean]
    with pytest.raises(ValueError, match="needs pairs"):
        with_measured(clean, [], 0.4)


def test_margin_is_cut_after_degrading() -> None:
    noisy, target, (sigma,), _ = PrepareDegraded(KspaceNoise(sigma=(0.1, 0.1)), margin=16)(CLEAN)
    assert noisy.shape == target.shape == sigma.shape == (4, 1, 32, 32)


def test_changed_pixels_weigh_more() -> None:
    class HalfWet(GaussianNoise):
        def apply(self, clean: torch.Tensor, params: object) -> torch.Tensor:
            wet = clean.clone()
            wet[..., :32] += 0.3
            return wet

    target = PrepareDegraded(HalfWet(), change_weight=6)(CLEAN)[1]
    assert target.shape == (4, 2, 64, 64)
    assert set(target[:, 1, :, :32].unique().tolist()) == {7.0}
    assert set(target[:, 1, :, 32:].unique().tolist()) == {1.0}
    pair = {"clean": CLEAN["image"], "noisy": HalfWet().apply(CLEAN["image"], None)}
    assert torch.equal(PreparePaired(change_weight=6)(pair)[1], target)


def test_validation_repeats_its_draws() -> None:
    prepare = PrepareDegraded(GaussianNoise(), repeat=2)
    first, second = (prepare(CLEAN)[0] for _ in range(2))
    begin_epoch(0, 5)  # of the training between
    third, fourth = (prepare(CLEAN)[0] for _ in range(2))
    assert torch.equal(first, third)
    assert torch.equal(second, fourth)
    assert not torch.equal(first, second)


def test_one_of_draws_each_choice_as_often_as_told() -> None:
    model = OneOf([GaussianNoise(sigma=(0.1, 0.1)), GaussianNoise(sigma=(0.4, 0.4))], weights=[0.75, 0.25])
    generator = torch.Generator().manual_seed(0)
    draws = [model.draw((1, 1, 8, 8), generator) for _ in range(400)]
    assert sum(draw.choice for draw in draws) / 400 == pytest.approx(0.25, abs=0.06)
    assert all(float(draw.sigma.mean()) == pytest.approx((0.1, 0.4)[draw.choice]) for draw in draws)
    clean = torch.zeros(1, 1, 8, 8)
    assert torch.equal(model.apply(clean, draws[0]), model.apply(clean, draws[0]))
    with pytest.raises(ValueError, match="one weight per degradation"):
        OneOf([GaussianNoise()], weights=[1, 2])
    with pytest.raises(ValueError, match="not be negative nor all 0"):
        OneOf([GaussianNoise(), GaussianNoise()], [1.5, -0.5])


def test_pairs_teach_a_range_of_doses() -> None:
    clean = torch.zeros(200, 1, 8, 8)
    pair = {"clean": clean, "noisy": clean + 1}
    noisy, target, arguments, _ = PreparePaired(rescale=0.5, rescale_range=(0.4, 0.8))(pair)
    level = noisy.mean((1, 2, 3))
    assert arguments == ()
    assert torch.equal(target, clean)
    assert float((level == 1).float().mean()) == pytest.approx(0.5, abs=0.12)
    rescaled = level[level != 1]
    assert float(rescaled.min()) >= 0.4
    assert float(rescaled.max()) <= 0.8


def test_a_pair_keeps_its_noisy_image_where_the_clean_one_is_not_known() -> None:
    clean, noisy = torch.full((2, 1, 4, 4), torch.nan), torch.rand(2, 5, 4, 4)
    given, target, *_ = PreparePaired()({"clean": clean, "noisy": noisy})
    assert torch.equal(given, noisy)
    assert target.isnan().all()


def test_noise_is_rescaled_only_where_it_is_known() -> None:
    clean = torch.zeros(4, 1, 8, 8)
    clean[..., :4] = torch.nan
    noisy = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    halved = PreparePaired(rescale=1.0, rescale_range=(0.5, 0.5))
    given, *_ = halved({"clean": clean, "noisy": noisy})
    assert torch.equal(given[..., :4], noisy[..., :4])
    assert torch.equal(given[..., 4:], noisy[..., 4:] / 2)
    with pytest.raises(ValueError, match="that of neighbours is not"):
        halved({"clean": clean, "noisy": noisy.repeat(1, 5, 1, 1)})
