"""Raindrops: identity when dry, pure, confined to the mask, of the stated amount, alike at every size."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from monai_sasm.degradations.drop_optics import DropLayer, Pane
from monai_sasm.degradations.raindrop import Raindrop, RaindropParams

SHAPE = (4, 3, 96, 128)


def test_dry_pane_is_identity() -> None:
    image = _photo(SHAPE)
    rain = Raindrop(coverage=(0, 0))
    params = rain.draw(SHAPE, _generator())
    assert torch.equal(rain.apply(image, params), image)
    assert float(params.mask.max()) == 0


def test_same_parameters_give_the_same_image_and_other_seeds_another() -> None:
    rain, image = Raindrop(coverage=(0.2, 0.4)), _photo(SHAPE)
    params = rain.draw(SHAPE, _generator(1))
    wet = rain.apply(image, params)
    assert torch.equal(wet, rain.apply(image, params))
    assert torch.equal(wet, rain.apply(image, rain.draw(SHAPE, _generator(1))))
    assert not torch.equal(wet, rain.apply(image, rain.draw(SHAPE, _generator(2))))
    assert wet.shape == image.shape
    assert wet.dtype == image.dtype


def test_nothing_changes_outside_the_mask_and_much_inside() -> None:
    rain, image = Raindrop(coverage=(0.1, 0.3)), _photo(SHAPE)
    params = rain.draw(SHAPE, _generator())
    wet, mask = rain.apply(image, params), params.mask
    assert mask.shape == (4, 1, 96, 128)
    assert float(mask.min()) >= 0
    assert float(mask.max()) <= 1
    outside = (mask == 0).expand_as(image)
    assert 0.02 < float(outside.float().mean()) < 0.98
    assert torch.equal(wet[outside], image[outside])
    assert float((wet - image).abs().amax(dim=1, keepdim=True)[mask > 0.5].mean()) > 0.05
    assert float(wet.min()) >= 0
    assert float(wet.max()) <= 1


@pytest.mark.parametrize("coverage", [0.1, 0.3])
def test_coverage_is_the_stated_one(coverage: float) -> None:
    """Mean alpha of opaque round drops is the footprint without overlaps: 1 - exp(-coverage) for a Poisson pattern."""
    rain = Raindrop(coverage=(coverage, coverage), opacity=(1, 1), second_layer=0, size=(0.05, 0.1), blur=(0.005, 0.01))
    masks = rain.draw((24, 3, 128, 128), _generator()).mask
    assert float(masks.mean()) == pytest.approx(1 - math.exp(-coverage), rel=0.2)


def test_default_range_changes_a_plausible_share_and_mostly_brightens() -> None:
    rain = Raindrop(reference=320)
    image = 0.4 * _photo((32, 3, 128, 128))
    wet = rain.apply(image, rain.draw(image.shape, _generator()))
    change = (wet - image).mean(dim=1)
    changed = change.abs() > 0.03
    assert 0.1 < float(changed.float().mean()) < 0.7
    assert float((change[changed] > 0).float().mean()) > 0.7


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 384)])
def test_relative_size_does_not_depend_on_image_size(height: int, width: int) -> None:
    rain = Raindrop(size=(0.08, 0.08), coverage=(0.2, 0.2), second_layer=0)
    layer = rain.draw((1, 3, height, width), _generator()).panes[0].layers[0]
    assert float(layer.radius.max()) == pytest.approx(0.04 * min(height, width), rel=1e-5)


def test_whole_pictures_of_other_sizes_are_as_wet() -> None:
    rain = Raindrop(coverage=(0.3, 0.3))
    small, large = (rain.draw((16, 3, n, n), _generator(n)).mask.mean() for n in (96, 240))
    assert float(small) == pytest.approx(float(large), rel=0.3)


def test_size_range_is_in_pixels_and_reference_is_the_picture_of_a_crop() -> None:
    layer = Raindrop(coverage=(0.3, 0.3), size_range=(6, 6)).draw(SHAPE, _generator()).panes[0].layers[0]
    assert float(layer.radius.max()) == 3
    rain = Raindrop(coverage=(0.3, 0.3), size=(0.1, 0.1), reference=200)
    assert float(rain.draw(SHAPE, _generator()).panes[0].layers[0].radius.max()) == pytest.approx(10)


def test_lens_turns_the_scene_upside_down() -> None:
    """A sharp, clear, strong drop on a picture with a bright top shows the bright part at its bottom."""
    image = torch.zeros(1, 3, 96, 96)
    image[:, :, :48] = 0.9
    wet = Raindrop().apply(image, _one_drop(gain=4.0))[0, 0]
    assert float(wet[58:64, 46:50].mean()) > 0.6
    assert float(wet[32:38, 46:50].mean()) < 0.3
    film = Raindrop().apply(image, _one_drop(gain=0.0))[0, 0]
    assert float(film[32:38, 46:50].mean()) > 0.6


def test_defocus_spreads_a_drop_and_keeps_its_light() -> None:
    sharp, soft = _one_drop(gain=4.0).mask, _one_drop(gain=4.0, aperture=12.0).mask
    assert float(soft.sum()) == pytest.approx(float(sharp.sum()), rel=0.02)
    assert float((soft > 0).sum()) > 1.5 * float((sharp > 0).sum())
    partial = ((soft > 0.1) & (soft < 0.9)).sum() / (soft > 0.1).sum()
    assert float(partial) > 0.5
    assert float(_one_drop(gain=4.0, aperture=30.0).mask.max()) < 0.6


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="blur"):
        Raindrop(blur=(0.1, 0.01))
    with pytest.raises(ValueError, match="coverage"):
        Raindrop(coverage=(0, 2))
    with pytest.raises(ValueError, match="RGB"):
        Raindrop().draw((1, 1, 32, 32), _generator())
    params = Raindrop().draw(SHAPE, _generator())
    with pytest.raises(ValueError, match="draw them again"):
        Raindrop().apply(torch.zeros(1, 3, 96, 128), replace(params))


def _one_drop(gain: float, aperture: float = 0.0) -> RaindropParams:
    one, none = torch.ones(1), torch.zeros(1)
    layer = DropLayer(
        centre=torch.tensor([[48.0, 48.0]]), radius=18 * one, stretch=one, tilt=none, taper=none,
        wobble=torch.zeros(1, 3), phase=torch.zeros(1, 3), opacity=one, veil=none, gain=gain * one, glint=none,
        aperture=aperture, blades=0, falloff=0.0,
    )  # fmt: skip
    pane = Pane((layer,), torch.ones(3), ground=0.5, own_sky=0.0, horizon=0.0, rim=0.0, gamma=1.0, detail=4)
    return RaindropParams(panes=(pane,), size=(96, 96), seed=0)


def _photo(shape: tuple[int, int, int, int]) -> torch.Tensor:
    coarse = torch.rand(shape[0], 3, 8, 8, generator=_generator(7))
    return torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bilinear")


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
