"""Noise of a camera, made where the camera makes it: on the sensor, before colours are found and brightened.

A sensor counts photons under a mosaic of red, green and blue filters. Its noise has a part that grows with the signal
and one that does not (Foi et al. 2008, IEEE Trans. Image Process. 17); white balance, demosaicing and the display's
gamma then make it correlated between pixels and channels and strongest in shadows (Brooks et al. 2019, CVPR,
"Unprocessing images for learned raw denoising", from where the ranges are taken). With ``l`` the linear image, ``g``
the gains of the white balance, ``M`` the mosaic and ``D`` bilinear demosaicing,

    n ~ N(0, shot . M(l / g) + read),   y = sRGB(clip(l + g . D(n)))

Only the noise is mosaicked: the picture keeps its resolution. A camera that writes JPEG is this one inside
:class:`monai_sasm.degradations.jpeg.Compressed`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from monai_sasm.degradations.draws import draw_seed
from monai_sasm.types import ImageBatch, NoiseMap

READ_SLOPE, READ_OFFSET, READ_SPREAD = 2.18, 1.20, 0.26  # log read = slope log shot + offset +- spread, Brooks et al.
RED_GAINS, BLUE_GAINS = (1.9, 2.4), (1.5, 1.9)  # white balance, green is 1
MID_GREY = 0.5  # sRGB, where the noise map's number is right


@dataclass(frozen=True)
class CameraNoiseParams:
    """One draw of :class:`CameraNoise`.

    Args:
        shot: ``(B, 1, 1, 1)``, variance per unit of signal on the sensor, full scale 1; 0 adds no noise.
        read: ``(B, 1, 1, 1)``, variance without signal.
        gains: ``(B, 3, 1, 1)``, white balance.
        smoothing: ``(B, 1, 1, 1)``, standard deviation in pixels of the blur that the noise has had on its way.
        size: height and width.
        seed: seed of the noise.
    """

    shot: torch.Tensor
    read: torch.Tensor
    gains: torch.Tensor
    smoothing: torch.Tensor
    size: tuple[int, int]
    seed: int

    @property
    def sigma(self) -> NoiseMap:
        """Standard deviation of the sensor's noise at mid-grey, ``(B, 1, H, W)``, in [0, 1] of sRGB.

        The pixels' own depends on their brightness, which the parameters do not know.
        """
        linear = ((MID_GREY + 0.055) / 1.055) ** 2.4
        slope = 1.055 / 2.4 * linear ** (1 / 2.4 - 1)
        sigma = slope * (self.shot * linear + self.read * (self.shot > 0)).sqrt()
        return sigma.expand(-1, -1, *self.size)

    @property
    def mask(self) -> NoiseMap:
        """1 in images that get noise, ``(B, 1, H, W)``."""
        return (self.shot > 0).float().expand(-1, -1, *self.size)


class CameraNoise:
    """Signal-dependent, correlated noise of a camera in sRGB photos.

    Args:
        shot: range of the shot noise's variance per unit of signal, drawn log-uniformly; 0.0001 is daylight, 0.01 is
            a dark room; (0, 0) adds no noise.
        smoothing: range of the blur of the noise, pixels, beyond demosaicing; drawn uniformly.

    Example:
        >>> import torch
        >>> from monai_sasm.degradations.camera_noise import CameraNoise
        >>> noise = CameraNoise(shot=(0.01, 0.01))
        >>> params = noise.draw((1, 3, 64, 64), torch.Generator().manual_seed(0))
        >>> noisy = noise.apply(torch.full((1, 3, 64, 64), 0.5), params)
    """

    def __init__(
        self, shot: tuple[float, float] = (0.0001, 0.012), smoothing: tuple[float, float] = (0.0, 0.7)
    ) -> None:
        if not 0 < shot[0] <= shot[1] and tuple(shot) != (0, 0):
            raise ValueError(f"shot must be an increasing range of positive numbers, or (0, 0), got {shot}")
        if not 0 <= smoothing[0] <= smoothing[1]:
            raise ValueError(f"smoothing must be an increasing range of non-negative numbers, got {smoothing}")
        self.shot, self.smoothing = tuple(shot), tuple(smoothing)

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> CameraNoiseParams:
        """Draw one camera setting per image of a batch ``(B, 3, H, W)``.

        Raises:
            ValueError: not three channels: the mosaic has three colours.
        """
        batch, channels, height, width = shape
        if channels != 3:
            raise ValueError(f"a camera's noise needs colour images of 3 channels, got {channels}")

        def uniform(low: float, high: float) -> torch.Tensor:
            return low + (high - low) * torch.rand(batch, 1, 1, 1, generator=generator)

        none = self.shot[1] == 0
        low, high = (0.0, 0.0) if none else (math.log(self.shot[0]), math.log(self.shot[1]))
        shot = uniform(low, high).exp() * (not none)
        spread = READ_SPREAD * torch.randn(batch, 1, 1, 1, generator=generator)
        gains = torch.cat([uniform(*RED_GAINS), torch.ones(batch, 1, 1, 1), uniform(*BLUE_GAINS)], 1)
        return CameraNoiseParams(
            shot=shot,
            read=(READ_SLOPE * shot.log() + READ_OFFSET + spread).exp(),
            gains=gains,
            smoothing=uniform(*self.smoothing),
            size=(height, width),
            seed=draw_seed(generator),
        )

    def apply(self, clean: ImageBatch, params: CameraNoiseParams) -> ImageBatch:
        """Noisy photos, clipped to [0, 1]; images with ``shot`` 0 are returned unchanged."""
        generator = torch.Generator().manual_seed(params.seed)
        gains, linear = params.gains.to(clean), srgb_to_linear(clean.clamp(0, 1))
        mosaic = _mosaic(linear)
        signal = (linear / gains * mosaic).sum(1, keepdim=True)
        normal = torch.randn(signal.shape, generator=generator).to(clean)
        noise = (params.shot.to(clean) * signal + params.read.to(clean)).sqrt() * normal
        noise = _smoothed(gains * _demosaiced(noise, mosaic), params.smoothing.to(clean))
        noisy = linear_to_srgb((linear + noise).clamp(0, 1))
        return torch.where(params.shot.to(clean) > 0, noisy, clean)


def srgb_to_linear(image: torch.Tensor) -> torch.Tensor:
    """Light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055).clamp_min(0) ** 2.4)


def linear_to_srgb(light: torch.Tensor) -> torch.Tensor:
    """Inverse of :func:`srgb_to_linear`."""
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def _mosaic(image: torch.Tensor) -> torch.Tensor:
    """``(1, 3, H, W)``: 1 where the pixel's filter has that colour, RGGB."""
    mosaic = torch.zeros_like(image[:1])
    mosaic[:, 0, ::2, ::2] = mosaic[:, 1, ::2, 1::2] = mosaic[:, 1, 1::2, ::2] = mosaic[:, 2, 1::2, 1::2] = 1
    return mosaic


def _demosaiced(raw: torch.Tensor, mosaic: torch.Tensor) -> torch.Tensor:
    """Every colour in every pixel, ``(B, 3, H, W)``: the mean of the nearest of that colour (bilinear)."""
    square, cross = (
        [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]],
        [[0.0, 1.0, 0.0], [1.0, 4.0, 1.0], [0.0, 1.0, 0.0]],
    )
    weights = raw.new_tensor([square, cross, square]).unsqueeze(1)
    summed = F.conv2d(F.pad(raw * mosaic, [1] * 4), weights, groups=3)
    return summed / F.conv2d(F.pad(mosaic, [1] * 4), weights, groups=3)


def _smoothed(noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A Gaussian blur of ``sigma`` pixels, one per image, over 5 x 5."""
    batch, channels = noise.shape[:2]
    squares = noise.new_tensor([4.0, 1.0, 0.0, 1.0, 4.0])
    line = torch.exp(-squares / (2 * sigma.view(batch, 1).clamp_min(1e-3) ** 2))
    line = (line / line.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = F.pad(noise.reshape(1, batch * channels, *noise.shape[-2:]), [2] * 4, mode="reflect")
    flat = F.conv2d(flat, line.view(-1, 1, 1, 5), groups=batch * channels)
    return F.conv2d(flat, line.view(-1, 1, 5, 1), groups=batch * channels).view_as(noise)
