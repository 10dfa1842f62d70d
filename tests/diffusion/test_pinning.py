"""What pinning promises: brightness and colour of the anchor, detail of the image, little of the anchor's noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from monai_sasm.diffusion.pinning import lowpass, pin_low_frequencies


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("radius", [0.7, 3.0, 16.0])
def test_lowpass_is_scipys_gaussian_over_the_pixels_there_are(radius: float) -> None:
    x = image(2, 3, 40, 57)
    blurred, weight = x.numpy(), np.ones((40, 57))
    for axis in (-2, -1):
        options = {"axis": axis, "mode": "constant", "radius": math.ceil(2 * radius)}
        blurred, weight = (gaussian_filter1d(part, radius, **options) for part in (blurred, weight))
    torch.testing.assert_close(lowpass(x, radius), torch.from_numpy(blurred / weight), atol=1e-6, rtol=0)


def test_noise_of_the_border_counts_no_more_than_that_of_the_middle() -> None:
    """Half the pixels on an edge, a quarter in a corner: 2 ** 0.5 and 2 times the noise."""
    noise = torch.randn(4000, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    spread = lowpass(noise, 2.0).std(0)[0]
    middle = float(spread[8:16, 8:16].mean())
    assert float(spread[0, 8:16].mean()) / middle < 1.7
    assert float(spread[0, 0]) / middle < 2.8


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2), (33, 47)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_any_size_and_dtype(size: tuple[int, int], dtype: torch.dtype) -> None:
    flat = torch.full((1, 3, *size), 0.5, dtype=dtype)
    found = lowpass(flat, 16.0)
    assert found.dtype == dtype
    torch.testing.assert_close(found, flat, atol=1e-5, rtol=0)


def test_autocast_leaves_the_blur_alone() -> None:
    x = image(1, 3, 64, 64).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = lowpass(x, 8.0)
    assert torch.equal(reduced, lowpass(x, 8.0))


def test_a_colour_cast_is_taken_back() -> None:
    anchor = image(1, 3, 48, 48)
    cast = torch.tensor([0.1, -0.05, 0.2], dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close(pin_low_frequencies(anchor + cast, anchor, 8.0), anchor, atol=1e-6, rtol=0)


def test_an_image_that_agrees_is_left_alone() -> None:
    anchor = image(1, 3, 32, 32)
    assert torch.equal(pin_low_frequencies(anchor, anchor, 16.0), anchor)


def test_low_frequencies_come_from_the_anchor_and_detail_from_the_image() -> None:
    rows = torch.arange(256, dtype=torch.float64)

    def wave(period: float) -> Tensor:
        return torch.sin(2 * math.pi * rows / period).view(1, 1, 1, -1).expand(1, 1, 64, -1)

    slow, fast = wave(256.0), wave(6.0)
    pinned = pin_low_frequencies(fast, slow, 8.0)[..., 64:192]
    middle = (fast + slow)[..., 64:192]
    # gain of a Gaussian of 8 pixels at a period of 256: exp(-2 pi^2 8^2 / 256^2) = 0.981
    assert float((pinned - middle).abs().max()) < 0.03


def test_noise_of_the_anchor_comes_back_as_stated() -> None:
    noise = torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    left = pin_low_frequencies(torch.zeros_like(noise), noise, 4.0).std()
    assert float(left) == pytest.approx(0.31 / 4, rel=0.08)


@pytest.mark.parametrize("radius", [0.0, -1.0, float("nan")])
def test_radius_must_be_positive(radius: float) -> None:
    with pytest.raises(ValueError, match="radius must be positive"):
        lowpass(image(1, 1, 4, 4), radius)
