"""How much noise, and where: a spatial noise map estimated from the image itself.

The mask ``[[1, -2, 1], [-2, 4, -2], [1, -2, 1]] / 6`` of Immerkaer 1996 (Computer Vision and Image Understanding 64)
removes locally linear structure and has unit gain for white noise. Its median absolute response over a block,
divided by 0.6745, is the block's noise standard deviation, robust against edges; a low quantile over neighbouring
blocks keeps texture, which only ever adds to the response, from being read as noise.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_sasm.types import ImageBatch, NoiseMap

_BAND = 2**20  # pixels
_GRID = 128  # pixels
MAD_TO_SIGMA = 1 / 0.6745  # median of |N(0, 1)|


class NoiseEstimator(nn.Module):
    """Estimates the noise standard deviation of each pixel.

    Noise that a reconstruction kernel or interpolation has smeared (CT, resampled photos) is under-read by a constant
    factor of that kernel; a network trained with this estimator's own maps learns the factor.

    Args:
        block: side of the square blocks in pixels; larger is steadier and less local.
        neighbourhood: side, in blocks, of the window over which the quantile is taken (odd).
        quantile: which quantile of the block estimates is kept, 0 to 1; smaller trusts only the smoothest blocks.

    Example:
        >>> import torch
        >>> from monai_sasm.functional.noise import NoiseEstimator
        >>> estimate = NoiseEstimator()(0.5 + 0.1 * torch.randn(1, 1, 128, 128))
        >>> estimate.shape, round(float(estimate.mean()), 1)
        (torch.Size([1, 1, 128, 128]), 0.1)
    """

    def __init__(self, block: int = 16, neighbourhood: int = 5, quantile: float = 0.3) -> None:
        if block < 4 or neighbourhood < 1 or neighbourhood % 2 == 0 or not 0 <= quantile <= 1:
            raise ValueError(
                "block must be at least 4, neighbourhood odd and quantile in [0, 1], "
                f"got block={block}, neighbourhood={neighbourhood}, quantile={quantile}"
            )
        super().__init__()
        self.block, self.neighbourhood, self.quantile = block, neighbourhood, quantile

    def forward(self, image: ImageBatch) -> NoiseMap:
        """Noise map ``(B, 1, H, W)`` of ``image`` ``(B, C, H, W)``, in its unit, averaged over channels."""
        height, width = image.shape[-2:]
        if min(height, width) < 3:
            return image.new_zeros(image.shape[0], 1, height, width)
        return self.spread(self._sigmas_of_blocks(image.float()), (height, width)).to(image.dtype)

    def spread(self, blocks: Tensor, size: tuple[int, int]) -> NoiseMap:
        """Noise map ``(B, 1, *size)`` from that of its blocks ``(B, 1, h, w)``: the low quantile around each."""
        height, width = size
        side = min(self.neighbourhood, *blocks.shape[-2:])
        side -= 1 - side % 2
        if side < self.neighbourhood and torch.jit.is_tracing():
            raise ValueError(
                f"the noise estimate of smaller images looks at fewer blocks: trace with sides of at least "
                f"{self.block * (self.neighbourhood - 1) + 3} pixels, got {height} x {width}"
            )
        around = F.pad(blocks, [side // 2] * 4, mode="replicate")
        windows = F.unfold(around, side)  # (B, size^2, h * w)
        low = _quantile(windows, self.quantile).view_as(blocks)
        return F.interpolate(low, size=(height, width), mode="bilinear", align_corners=False)

    def _sigmas_of_blocks(self, image: Tensor) -> Tensor:
        """Some rows of blocks after the other, which takes less memory; a record holds no loop."""
        rows, band = -(-(image.shape[-2] - 2) // self.block), max(2, _BAND // (image.shape[-1] * self.block))
        if _is_recorded() or rows < 2 * band or image.shape[-1] - 2 < self.block:
            return self._block_sigmas(image)
        firsts = range(0, rows - 1, band)  # the last band has two rows at least, for its padding to come from
        ends = [first * self.block + 2 for first in firsts[1:]] + [image.shape[-2]]
        return torch.cat(
            [
                self._block_sigmas(image[..., first * self.block : end, :])
                for first, end in zip(firsts, ends, strict=True)
            ],
            2,
        )

    def _block_sigmas(self, image: torch.Tensor) -> torch.Tensor:
        batch, channels = image.shape[:2]
        across = image[..., :-2] - 2 * image[..., 1:-1] + image[..., 2:]  # the mask is one row of differences ...
        both = across[..., :-2, :] - 2 * across[..., 1:-1, :] + across[..., 2:, :]  # ... of one column of differences
        response = (both / 6).abs()  # (B, C, H-2, W-2)
        block = min(self.block, *response.shape[-2:])
        pad = (0, -response.shape[-1] % block, 0, -response.shape[-2] % block)
        if pad[1] or pad[3]:
            mode = "reflect" if pad[1] < response.shape[-1] and pad[3] < response.shape[-2] else "replicate"
            response = F.pad(response, pad, mode=mode)
        h, w = response.shape[-2] // block, response.shape[-1] // block
        tiles = response.view(batch, channels, h, block, w, block).transpose(3, 4).flatten(-2)  # (B, C, h, w, block^2)
        return median(tiles).mean(1, keepdim=True) * MAD_TO_SIGMA


def median(values: Tensor) -> Tensor:
    """Lower median over the last axis, as ``Tensor.median``; NumPy finds it eight times as fast."""
    return _ordered(values, (values.shape[-1] - 1) // 2)[0]


def noise_level(sigma: NoiseMap) -> list[float]:
    """One number for the noise map ``(B, 1, H, W)`` of each image: the median of where there is noise, 0 if nowhere.

    A background of zeros, padding and other constant regions have none, and often are most of an image. Maps vary
    slowly: of a large one, a grid of pixels is looked at, about :data:`_GRID` along its shorter side, and all of them
    only where that finds no noise.
    """
    step = max(1, min(sigma.shape[-2:]) // _GRID)
    grid = sigma[..., step // 2 :: step, step // 2 :: step]
    return [_median_above_zero(few) or _median_above_zero(one) for few, one in zip(grid, sigma, strict=True)]


def _median_above_zero(values: Tensor) -> float:
    found = values[values > 0]
    return float(median(found)) if len(found) else 0.0


def volume_noise_level(levels: Sequence[float]) -> float:
    """Median of the noise levels of slices, of those that show something."""
    noisy = [level for level in levels if level > 0]
    return statistics.median(noisy) if noisy else 0.0


def _is_recorded() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _quantile(values: Tensor, share: float) -> Tensor:
    """``torch.quantile`` over the few values of axis 1, without its checks and copies."""
    place = share * (values.shape[1] - 1)
    below = int(place)
    low, high = _ordered(values.transpose(1, 2), below, min(below + 1, values.shape[1] - 1))
    return torch.lerp(low, high, place - below)


def _ordered(values: Tensor, *places: int) -> list[Tensor]:
    """What stands at these places of the last axis once it is sorted.

    An exported or traced graph would keep NumPy's result of its example as a constant.
    """
    if _is_recorded() or values.device.type != "cpu" or values.requires_grad:
        ordered = values.sort(dim=-1).values
        return [ordered[..., place] for place in places]
    parted = np.partition(values.numpy(), places, axis=-1)
    return [torch.from_numpy(parted[..., place]) for place in places]
