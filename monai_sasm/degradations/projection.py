"""Parallel-beam X-ray projection, its filter and back projection of square-pixel images, in torch.

Geometry (that of scikit-image): image rows point down (y), columns right (x), the rotation centre is pixel
``(H//2, W//2)``, detector element ``D//2`` looks at it, and a pixel at ``(x, y)`` from the centre meets the detector at
``t = x cos(theta) - y sin(theta)``. Lengths are in pixels; line integrals times the pixel spacing are in millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES_AT_ONCE = 1 << 23  # rotated samples held in memory by one step of `radon`

FrequencyResponse = Callable[[Tensor], Tensor]
"""Frequencies >= 0 in cycles per mm, any shape -> gain of the reconstruction kernel over the pure ramp, same shape."""


def view_angles(views: int, device: torch.device | None = None) -> Tensor:
    """Angles of ``views`` equally spaced views over half a turn, radians, shape (views,)."""
    return torch.arange(views, device=device) * (math.pi / views)


def detector_count(height: int, width: int) -> int:
    """Detector elements of one pixel width that see every pixel of the image under every angle."""
    return math.ceil(math.hypot(height, width)) + 2


def radon(image: Tensor, angles: Tensor, detectors: int) -> Tensor:
    """Line integrals by rotation with bilinear interpolation, one sample per pixel length along each ray.

    Args:
        image: (B, 1, H, W), zero outside.
        angles: (V,) radians.
        detectors: D, elements of one pixel width (see :func:`detector_count`).

    Returns:
        (B, V, D), image unit times pixels.
    """
    height, width = image.shape[-2:]
    t = torch.arange(detectors, device=image.device) - float(detectors // 2)
    t, s = t[:, None].to(image.dtype), t[None, :].to(image.dtype)
    planes = image.transpose(0, 1)  # the batch as channels: one grid serves all images
    rows = []
    for chunk in angles.to(image).split(max(1, SAMPLES_AT_ONCE // (detectors * detectors * len(image)))):
        cos, sin = chunk.cos()[:, None, None], chunk.sin()[:, None, None]
        x = (cos * t + sin * s + width // 2) * (2 / max(width - 1, 1)) - 1
        y = (cos * s - sin * t + height // 2) * (2 / max(height - 1, 1)) - 1
        grid = torch.stack((x, y), dim=-1).flatten(0, 1)[None]
        rotated = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        rows.append(rotated.sum(-1).view(len(image), len(chunk), detectors))
    return torch.cat(rows, dim=1)


def back_project(sinogram: Tensor, angles: Tensor, height: int, width: int, samples_per_pixel: int = 1) -> Tensor:
    """Mean over views of the value each pixel sees (nearest sample), times pi: the integral over half a turn.

    Args:
        sinogram: (B, V, D), with ``samples_per_pixel`` samples per pixel width; sample ``D//2`` is the centre.
        angles: (V,) radians, equally spaced over half a turn.

    Returns:
        (B, 1, H, W); rays that miss the detector count as 0.
    """
    batch, views, detectors = sinogram.shape
    x = (torch.arange(width, device=sinogram.device) - float(width // 2)) * samples_per_pixel
    y = (torch.arange(height, device=sinogram.device) - float(height // 2)) * samples_per_pixel
    padded = F.pad(sinogram, (1, 1)).permute(1, 2, 0).contiguous()  # (V, D + 2, B): one gather serves the batch
    total = sinogram.new_zeros(height * width, batch)
    for row, angle in zip(padded, angles.tolist(), strict=True):
        position = (x * math.cos(angle) + (detectors // 2 + 1.5))[None, :] - (y * math.sin(angle))[:, None]
        index = position.clamp_(0, detectors + 1).to(torch.int32).flatten()
        total += row.index_select(0, index)
    return (total * (math.pi / views)).t().reshape(batch, 1, height, width)


def filter_sinogram(
    sinogram: Tensor, spacing: float, kernel: FrequencyResponse | None = None, upsampling: int = 1
) -> Tensor:
    """Ramp filter times reconstruction kernel, optionally resampled ``upsampling`` times finer by zero-filled FFT.

    The ramp is the transform of its band-limited impulse response (Kak and Slaney 1988, eq. 3.61), so that the mean is
    right too.

    Args:
        sinogram: (B, V, D).
        spacing: detector spacing, mm.
        kernel: gain over frequency; ``None`` for the pure ramp.

    Returns:
        (B, V, D * upsampling), sinogram unit per mm; sample ``(D * upsampling) // 2`` is the centre again.
    """
    detectors = sinogram.shape[-1]
    length = 2 ** math.ceil(math.log2(2 * detectors))
    gain = ramp_response(length, spacing, kernel, sinogram.device).to(sinogram.dtype)
    spectrum = torch.fft.rfft(sinogram, n=length) * gain
    fine = torch.fft.irfft(spectrum, n=length * upsampling) * upsampling
    # The resampled centre is (D//2) * upsampling; shift so that it falls on the middle of the returned row.
    shift = (detectors * upsampling) // 2 - (detectors // 2) * upsampling
    return fine.roll(shift, dims=-1)[..., : detectors * upsampling]


def ramp_response(
    length: int, spacing: float, kernel: FrequencyResponse | None, device: torch.device | None = None
) -> Tensor:
    """Gain of ramp times kernel at the ``length // 2 + 1`` frequencies of a real FFT, cycles per mm, float64."""
    n = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64, device=device)
    impulse = torch.where(n % 2 != 0, -1 / (math.pi * n * spacing) ** 2, torch.zeros_like(n))
    impulse[0] = 1 / (4 * spacing**2)
    ramp = torch.fft.rfft(impulse).real * spacing
    frequency = torch.fft.rfftfreq(length, spacing, dtype=torch.float64, device=device)
    return ramp if kernel is None else ramp * kernel(frequency)


def noise_gain(detectors: int, spacing: float, kernel: FrequencyResponse | None = None) -> float:
    """Sum of squares of the filter's taps: variance after filtering over variance of a white sinogram, 1/mm^2."""
    length = 2 ** math.ceil(math.log2(2 * detectors))
    gain = ramp_response(length, spacing, kernel)
    return float(torch.fft.irfft(gain, n=length).square().sum())
