"""A noise that the user tells, as the networks are told it.

People measure the standard deviation in a uniform region. The networks were trained with maps of
:class:`monai_sasm.functional.noise.NoiseEstimator`, which reads a part of it only where noise is coarse: told the 26 HU
that a circle shows, a network for CT takes a soft kernel for one of six times the noise. So what is told is translated
into what the estimate reads of noise of that grain, see :mod:`monai_sasm.functional.uniform_tissue`.

What they are told stays within the range that they were trained for, unless the image lies beyond it: told ever less, a
network smooths more, not less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from monai_sasm.bundles import Bundle
from monai_sasm.errors import RefusedError
from monai_sasm.functional.intensity import scaling_for
from monai_sasm.functional.noise import NoiseEstimator, noise_level, volume_noise_level
from monai_sasm.functional.rician import magnitude_variance
from monai_sasm.functional.uniform_tissue import WHITE, middle, spread_evenly, uniform_noise
from monai_sasm.io.volume import Volume
from monai_sasm.types import ImageBatch, NoiseMap

MOST = 0.5  # of the working scale


@dataclass(frozen=True)
class ToldNoise:
    """Makes noise maps.

    Args:
        sigma: standard deviation, working scale.
        reading: what the networks are told where there is that much.
        asked: what ``reading`` would be, had the experts no range.
        estimator: whose maps the networks know.
        rician: whether there is less where the image is dark.
    """

    sigma: float
    reading: float
    asked: float
    estimator: NoiseEstimator
    rician: bool = False

    def map(self, image: ImageBatch) -> NoiseMap:
        """Noise map ``(B, 1, H, W)`` of images ``(B, C, H, W)``, working scale."""
        if not self.rician:
            return torch.full_like(image[:, :1], self.reading)
        height, width = image.shape[-2:]
        block = self.estimator.block
        whole = F.pad(image.float().mean(1, keepdim=True), (0, -width % block, 0, -height % block), mode="replicate")
        variance = magnitude_variance(F.avg_pool2d(whole**2, block) / self.sigma**2)  # (B, 1, h, w)
        part = self.estimator.spread(variance.sqrt(), (height, width))
        return (self.reading * part).to(image.dtype)


def noise_maps(told: Sequence[ToldNoise], image: ImageBatch) -> NoiseMap:
    """Noise maps ``(B, 1, H, W)`` of images ``(B, C, H, W)``, working scale, each with what is told of it."""
    if all(one is told[0] for one in told):
        return told[0].map(image)
    return torch.cat([one.map(image[index : index + 1]) for index, one in enumerate(told)])


def told_slices(
    volume: Volume, sigma: float | None, estimator: NoiseEstimator, experts: Iterable[Bundle] = ()
) -> list[ToldNoise] | None:
    """:func:`told_noise` of each slice of :meth:`Volume.each_slice`: that of its time point.

    Args and errors as there. Of a time point that is too dark for so much, as much as there can be is told.
    """
    if sigma is None:
        return None
    stacks, found, experts = volume.stacks(), [], list(experts)
    limits = [MOST * scaling_for(one).scale for one in stacks]
    for stack, limit in zip(stacks, limits, strict=True):
        told = told_noise(stack, min(sigma, limit) if sigma <= max(limits) else sigma, estimator, experts)
        found += [told] * volume.stack_length
    return found


def told_noise(volume: Volume, sigma: float, estimator: NoiseEstimator, experts: Iterable[Bundle] = ()) -> ToldNoise:
    """Translate what is told of a volume.

    Args:
        volume: as it came.
        sigma: standard deviation in uniform tissue, in the unit of the volume.
        estimator: whose maps the networks know.
        experts: within whose ranges the reading stays, or between them and what the image reads, if that is beyond.

    Raises:
        RefusedError: there cannot be so much.
    """
    profile, scaling = volume.modality.profile, scaling_for(volume)
    count = volume.slices_shape[0]
    seen = [scaling.forward(np.array(middle(volume.slice_at(index)))) for index in spread_evenly(count)]
    found = uniform_noise(np.stack(seen), profile, estimator)
    grain = WHITE if found is None else found.grain  # of white noise, where there is too little tissue
    if sigma > MOST * scaling.scale:
        raise RefusedError(
            f"a noise of {sigma:g} would leave nothing of an image whose white is {scaling.scale:g}; give its standard "
            f"deviation in the unit of the image{', of which 1 is white' if profile.is_picture else ''}"
        )
    sigma = sigma / scaling.scale
    read = volume_noise_level([noise_level(estimator(torch.from_numpy(one)[None]))[0] for one in seen])
    if not profile.is_picture:
        low, high = (level / profile.scale for level in _limits(experts))
        reading = min(max(grain * sigma, min(low, read)), max(high, read))
        return ToldNoise(sigma, reading, grain * sigma, estimator, rician=profile.rician)
    # networks for photos were told the deviation itself of white noise, and readings of any other; texture makes noise
    # look coarse, but not the reading of the photo small
    reading = max(min(1.0, grain / WHITE) * sigma, min(read, sigma))
    return ToldNoise(sigma, reading, reading, estimator)


def _limits(experts: Iterable[Bundle]) -> tuple[float, float]:
    """Lowest and highest reading, HU or share of white, for which all of these experts that take one were trained."""
    ranges = [one.metadata["sasm"].get("range", {}).get("noise") for one in experts if one.noise_map]
    known = [one for one in ranges if one]
    return max((low for low, _ in known), default=0.0), min((high for _, high in known), default=float("inf"))
