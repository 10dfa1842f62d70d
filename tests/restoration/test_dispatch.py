"""Tiles cover an image once, unneeded experts rest, and no seam shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_sasm.experts.unet import ResidualUNet
from monai_sasm.functional.tiling import tiles
from monai_sasm.restoration.dispatch import gate_logits, restore_tiled


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (100, 333), (320, 97), (257, 258)])
def test_cores_cover_every_pixel_once(size: tuple[int, int]) -> None:
    count = np.zeros(size, int)
    for part in tiles(*size, tile=64, halo=32):
        count[part.core] += 1
        for core, window, inner in zip(part.core, part.window, part.inner, strict=True):
            assert window.start <= core.start < core.stop <= window.stop
            assert inner.stop - inner.start == core.stop - core.start
            assert window.start % 32 == 0
    assert (count == 1).all()


def test_tiles_must_fit_the_strides() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        tiles(100, 100, tile=50, halo=32)


def test_a_tiled_run_equals_the_whole_run() -> None:
    """A network of the shipped architecture, with weights of usual size, sees no difference beyond 0.01 dB."""
    torch.manual_seed(0)
    network = ResidualUNet(1, channels=(16, 16, 16, 16)).eval()
    image = torch.rand(1, 1, 480, 416)
    sigma = torch.full_like(image, 0.1)
    weights = torch.rand(1, 1, 480, 416)
    weights = torch.cat([1 - weights, weights], 1)
    with torch.inference_mode():
        whole = restore_tiled(image, sigma, weights, {1: lambda x, s: network(x)}, tile=1024, halo=0)
        tiled = restore_tiled(image, sigma, weights, {1: lambda x, s: network(x)}, tile=96, halo=128)
    error = float((whole - tiled).square().mean())
    change = float((whole - image).square().mean())
    assert len(tiles(480, 416, 96, 128)) == 25
    # 0.01 dB of the correction's own energy is a factor of 0.0023
    assert error < 0.0023 * change * 1e-2


@pytest.mark.parametrize(("tile", "halo"), [(64, 32), (32, 64), (96, 96)])
def test_in_place_the_tiles_look_at_the_image_as_it_came(tile: int, halo: int) -> None:
    image, weights = torch.rand(1, 3, 330, 200), torch.rand(1, 2, 330, 200)
    blur = {1: lambda x, s: torch.nn.functional.avg_pool2d(x, 31, 1, 15)}
    apart = restore_tiled(image, image[:, :1], weights, blur, tile=tile, halo=halo)
    same = restore_tiled(image, image[:, :1].clone(), weights, blur, tile=tile, halo=halo, in_place=True)
    assert same is image
    assert torch.equal(same, apart)


def test_an_expert_without_weight_is_not_run() -> None:
    image = torch.rand(1, 1, 320, 64)
    weights = torch.zeros(1, 3, 320, 64)
    weights[:, 0] = 1
    weights[:, 1, :40] = 0.5
    weights[:, 0, :40] = 0.5
    seen: list[tuple[int, int]] = []

    def expert(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[-2:]))
        return x + 1

    def never(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        raise AssertionError("this expert has no weight anywhere")

    steps: list[int] = []
    result = restore_tiled(image, image, weights, {1: expert, 2: never}, tile=64, halo=32, progress=steps.append)
    assert seen == [(96, 64)], "only the first tile, with its halo below"
    assert sum(steps) == 5
    torch.testing.assert_close(result[..., :40, :], image[..., :40, :] + 0.5)
    assert torch.equal(result[..., 40:, :], image[..., 40:, :])


def test_tiled_scores_match_whole_scores() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(4, 3, 9, stride=8, padding=4)
    image, sigma = torch.rand(1, 3, 200, 173), torch.rand(1, 1, 200, 173)

    def gate(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return network(torch.cat([x, s], 1))

    with torch.inference_mode():
        whole = gate(image, sigma)
        tiled = gate_logits(image, sigma, gate, tile=64, halo=32)
    assert tiled.shape == (1, 3, 25, 22)
    torch.testing.assert_close(tiled, whole)
