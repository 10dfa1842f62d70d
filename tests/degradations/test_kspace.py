"""MR degradation: Fourier laws, Rician statistics, kept scale."""

from __future__ import annotations

import math

import pytest
import torch

from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr, to_image, to_kspace

SHAPE = (2, 1, 64, 48)


def test_transform_is_unitary_and_centred() -> None:
    image = torch.rand(SHAPE, generator=_generator())
    kspace = to_kspace(image)
    assert torch.allclose(to_image(kspace).real, image, atol=1e-5)
    assert float(kspace.abs().square().sum()) == pytest.approx(float(image.square().sum()), rel=1e-5)
    assert kspace[0, 0, 32, 24].real.item() == pytest.approx(image[0].sum().item() / math.sqrt(64 * 48), rel=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        KspaceTruncation(factor=(1.0, 1.0)),
        KspaceNoise(sigma=(0.0, 0.0)),
        LowQualityMr(KspaceTruncation(factor=(1.0, 1.0)), KspaceNoise(sigma=(0.0, 0.0))),
    ],
)
def test_zero_strength_is_identity(model: LowQualityMr) -> None:
    image = torch.rand(SHAPE, generator=_generator())
    params = model.draw(SHAPE, _generator())
    assert torch.equal(model.apply(image, params), image)
    assert float(params.mask.max()) == 0


def test_same_parameters_give_the_same_image_and_other_seeds_another() -> None:
    model = LowQualityMr(KspaceTruncation(factor=(1.5, 3.0)), KspaceNoise(sigma=(0.05, 0.1)))
    image = torch.rand(SHAPE, generator=_generator())
    params = model.draw(SHAPE, _generator(1))
    once = model.apply(image, params)
    assert torch.equal(once, model.apply(image, params))
    assert torch.equal(once, model.apply(image, model.draw(SHAPE, _generator(1))))
    assert not torch.equal(once, model.apply(image, model.draw(SHAPE, _generator(2))))
    assert once.shape == image.shape
    assert once.dtype == image.dtype
    assert float(params.mask.min()) == 1


@pytest.mark.parametrize("signal", [0.0, 0.05, 0.5])
def test_second_moment_is_that_of_rice(signal: float) -> None:
    sigma = 0.1
    model = KspaceNoise(sigma=(sigma, sigma))
    shape = (4, 1, 128, 128)
    noisy = model.apply(torch.full(shape, signal), model.draw(shape, _generator()))
    assert float(noisy.square().mean()) == pytest.approx(signal**2 + 2 * sigma**2, rel=0.02)
    if signal == 0:
        assert float(noisy.mean()) == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.02)


def test_sigma_is_drawn_per_image_in_units_of_the_scale() -> None:
    params = KspaceNoise(sigma=(0.01, 0.2), scale=1000.0).draw((64, 1, 4, 4), _generator())
    drawn = params.sigma[:, 0, 0, 0]
    assert 10 <= float(drawn.min()) < 50
    assert 150 < float(drawn.max()) <= 200
    assert torch.equal(params.sigma, drawn.view(-1, 1, 1, 1).expand_as(params.sigma))


@pytest.mark.parametrize("apodisation", [0.0, 0.5, 1.0])
def test_truncation_keeps_the_mean_and_only_the_centre(apodisation: float) -> None:
    model = KspaceTruncation(factor=(2.0, 2.0), apodisation=apodisation)
    image = 1 + torch.rand(SHAPE, generator=_generator())
    params = model.draw(SHAPE, _generator())
    low = model.apply(image, params)
    assert torch.allclose(low.mean((1, 2, 3)), image.mean((1, 2, 3)), rtol=1e-3)
    outside = to_kspace(low).abs() * (model.window(params, (64, 48)) == 0)
    assert float(outside.max()) < 1e-4
    window = model.window(params, (64, 48))
    assert window[0, 0, 32, 24] == 1
    assert int((window[0, 0] > 0).sum()) <= 31 * 23
    if apodisation == 0:
        assert int(window[0, 0].sum()) == 31 * 23  # symmetric: odd


def test_only_the_named_axis_is_truncated() -> None:
    model = KspaceTruncation(factor=(4.0, 4.0), axes=(-2,))
    columns = (torch.arange(48) % 2).float().expand(1, 1, 64, 48)  # the highest frequency along a row
    params = model.draw((1, 1, 64, 48), _generator())
    assert torch.allclose(model.apply(columns, params), columns, atol=1e-5)
    rows = (torch.arange(64) % 2).float()[:, None].expand(1, 1, 64, 48)
    assert torch.allclose(model.apply(rows, params), torch.full((1, 1, 64, 48), 0.5), atol=1e-5)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        KspaceTruncation(factor=(0.5, 2.0))
    with pytest.raises(ValueError, match="axes"):
        KspaceTruncation(axes=(0,))
    with pytest.raises(ValueError, match="non-negative"):
        KspaceNoise(sigma=(-0.1, 0.1))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
