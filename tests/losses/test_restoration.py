"""Losses against their formulas, with random VGG19 weights where features are needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_sasm.losses.features import VGG_N_FILE, Vgg19Features
from monai_sasm.losses.restoration import ChangeWeightedL1, RestorationLoss
from tests.losses.test_features import state


@pytest.fixture
def vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vgg19Features:
    """Random features where the loss will find them."""
    weights = state("", (2, 5, 9, 12, 16))
    weights |= {"0.weight": torch.eye(3).view(3, 3, 1, 1), "0.bias": torch.zeros(3)}
    torch.save(weights, tmp_path / VGG_N_FILE)
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return Vgg19Features(tmp_path / VGG_N_FILE)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return tuple(2 * torch.rand(2, 3, 16, 20, generator=random) - 1 for _ in range(2))  # type: ignore[return-value]


def test_without_features_it_is_mse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SASM_WEIGHTS", str(tmp_path))  # no weights there, and none needed
    x, y = pair()
    torch.testing.assert_close(RestorationLoss(perceptual=0.0)(x, y), torch.nn.functional.mse_loss(x, y))


def test_the_feature_term_is_the_mean_square_of_normalised_features(vgg: Vgg19Features) -> None:
    x, y = pair()
    expected = torch.nn.functional.mse_loss(x, y)
    for a, b in zip(vgg((x + 1) / 2), vgg((y + 1) / 2), strict=True):
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=1)
        expected = expected + 0.1 * ((2 - 2 * cosine) / a.shape[1]).mean()  # |u - v|^2 = 2 - 2 u v
    torch.testing.assert_close(RestorationLoss()(x, y), expected, atol=1e-5, rtol=1e-5)


def test_black_may_be_zero(vgg: Vgg19Features) -> None:
    x, y = pair()
    unit = RestorationLoss(perceptual=1.0, low=0.0)((x + 1) / 2, (y + 1) / 2)
    signed = RestorationLoss(perceptual=1.0, low=-1.0)(x, y)
    mse = torch.nn.functional.mse_loss(x, y)
    torch.testing.assert_close(signed - mse, unit - mse / 4)


def test_reduced_precision_is_close(vgg: Vgg19Features) -> None:
    x, y = pair()
    full, reduced = (RestorationLoss(perceptual=1.0, reduced=flag)(x, y) for flag in (False, True))
    assert reduced.dtype == torch.float32
    assert float(reduced) == pytest.approx(float(full), rel=0.01)


def test_only_the_prediction_gets_a_gradient(vgg: Vgg19Features) -> None:
    x, y = pair()
    x.requires_grad_()
    y.requires_grad_()
    RestorationLoss(perceptual=100.0)(x, y.detach()).backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert float(RestorationLoss()(x, x)) == 0


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weights must not be negative nor all zero, got perceptual=-0\.1"):
        RestorationLoss(perceptual=-0.1)


def test_changed_pixels_weigh_more() -> None:
    prediction, target = torch.zeros(1, 1, 1, 4), torch.ones(1, 2, 1, 4)
    target[:, 0] = torch.tensor([1.0, 2.0, 0.0, 0.0])
    target[:, 1] = torch.tensor([3.0, 1.0, 1.0, 1.0])
    assert float(ChangeWeightedL1()(prediction, target)) == pytest.approx((3 * 1 + 2) / 6)
    assert float(ChangeWeightedL1()(prediction, target[:, :1])) == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="1 channels, or 2 with weights last, got 3"):
        ChangeWeightedL1()(prediction, torch.zeros(1, 3, 1, 4))
