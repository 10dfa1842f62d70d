"""A noise that the user tells, as the networks are told it.

People measure the standard deviation in a uniform region. The networks were trained with maps of
:class:`monai_sasm.functional.noise.NoiseEstimator`, which reads a part of it only where noise is coarse: told the 26 HU
that a circle shows, a network for CT takes a soft kernel for one of six times the noise. So what is told is translated
into what the estimate reads of noise of that grain, see :mod:`monai_sasm.functional.uniform_tissue`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.noise import NoiseEstimator
from monai_sasm.functional.rician import magnitude_variance
from monai_sasm.functional.uniform_tissue import WHITE, middle, spread_evenly, uniform_noise
from monai_sasm.io.volume import Volume
from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class ToldNoise:
    """Makes noise maps.

    Args:
        sigma: standard deviation, working scale.
        reading: what the networks are told where there is that much.
        estimator: whose maps the networks know.
        rician: whether there is less where the image is dark.
    """

    sigma: float
    reading: float
    estimator: NoiseEstimator
    rician: bool = False

    def map(self, image: ImageBatch) -> NoiseMap:
        """Noise map ``(B, 1, H, W)`` of images ``(B, C, H, W)``, working scale."""
        if not self.rician:
            return torch.full_like(image[:, :1], self.reading)
        height, width = image.shape[-2:]
        block = self.estimator.block
        whole = F.pad(image.float().mean(1, keepdim=True), (0, -width % block, 0, -height % block), mode="replicate")
        variance = magnitude_variance(F.avg_pool2d(whole**2, block), self.sigma)  # (B, 1, h, w)
        part = self.estimator.spread((variance / self.sigma**2).sqrt(), (height, width))
        return (self.reading * part).to(image.dtype)


def told_noise(volume: Volume, sigma: float | None, estimator: NoiseEstimator) -> ToldNoise | None:
    """Translate what is told of a volume; ``None`` where nothing is.

    Args:
        volume: as it came.
        sigma: standard deviation in uniform tissue, in the unit of the volume.
        estimator: whose maps the networks know.
    """
    if sigma is None:
        return None
    profile, scaling = volume.modality.profile, scaling_for(volume)
    grain = _grain(volume, estimator)
    if profile.is_picture:  # their networks were told the deviation itself of white noise, and readings of any other
        grain = min(1.0, grain / WHITE)
    sigma = sigma / scaling.scale
    return ToldNoise(sigma, grain * sigma, estimator, rician=profile.rician)


def _grain(volume: Volume, estimator: NoiseEstimator) -> float:
    """What the estimate reads of a standard deviation of 1; of white noise, where there is too little tissue."""
    count, scaling = volume.slices_shape[0], scaling_for(volume)
    slices = [scaling.forward(np.array(middle(volume.slice_at(index)))) for index in spread_evenly(count)]
    found = uniform_noise(np.stack(slices), volume.modality.profile, estimator)
    return WHITE if found is None else found.grain
