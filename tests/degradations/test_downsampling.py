"""Downsampling is Pillow's bicubic, any size goes, and enlarging undoes it for smooth images."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from monai_sasm.degradations.downsampling import downsample, upsample


def photo(height: int = 96, width: int = 120) -> torch.Tensor:
    crop = np.ascontiguousarray(skimage.data.astronaut()[60 : 60 + height, 160 : 160 + width])
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_it_is_the_bicubic_of_pillow(factor: int) -> None:
    image = photo()
    for ours, size in ((downsample(image, factor), (120 // factor, 96 // factor)), (upsample(image, 2), (240, 192))):
        for channel in range(3):
            theirs = Image.fromarray(image[0, channel].numpy()).resize(size, Image.Resampling.BICUBIC)
            np.testing.assert_allclose(ours[0, channel].numpy(), np.asarray(theirs), atol=2e-6)


def test_sides_that_do_not_fit_are_extended() -> None:
    image = photo(7, 10)
    small = downsample(image, 4)
    assert small.shape == (1, 3, 2, 3)
    extended = torch.cat([image, image[..., -1:, :]], -2)
    extended = torch.cat([extended, extended[..., -1:], extended[..., -1:]], -1)
    torch.testing.assert_close(small, downsample(extended, 4))


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_constant_stays_constant(factor: int) -> None:
    flat = torch.full((1, 3, 8, 16), 0.3)
    torch.testing.assert_close(downsample(flat, factor), torch.full((1, 3, 8 // factor, 16 // factor), 0.3))
    torch.testing.assert_close(upsample(flat, factor), torch.full((1, 3, 8 * factor, 16 * factor), 0.3))


def test_a_ramp_survives_away_from_the_border() -> None:
    """Keys' kernel reproduces straight lines, so detail is all that is lost."""
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 16, 64).contiguous()
    again = upsample(downsample(ramp, 4), 4)
    torch.testing.assert_close(again[..., 16:48], ramp[..., 16:48], atol=1e-5, rtol=0)
    assert float((again - ramp).abs().max()) > 0.003, "at the border the kernel is cut off"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    assert downsample(photo().to(dtype), 2).dtype == dtype
    assert upsample(photo().to(dtype), 2).dtype == dtype


def test_wrong_factors_are_refused() -> None:
    for call in (lambda: downsample(photo(), 0), lambda: upsample(photo(), 0)):
        with pytest.raises(ValueError, match="at least 1"):
            call()
