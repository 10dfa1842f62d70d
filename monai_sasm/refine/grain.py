"""A little of the fine noise that was removed is given back: measured grain, nothing drawn.

A denoiser of least squared error cannot tell the faintest texture from noise and removes both, which looks waxed. Of
what it removed, y - x, a share g costs little: by the orthogonality of the least squared error the mean square error
grows by g^2 E(y - x)^2 only, while features of vision networks, which see that texture is missing, come much closer.
Film restorers do the same by eye. The grain is grey: colours that fluctuate look like noise, not like texture.
"""

from __future__ import annotations

import torch

from monai_sasm.diffusion.pinning import lowpass
from monai_sasm.types import ImageBatch

FINE = 2.0  # pixels; standard deviation of the low-pass that is not given back: no blotches
LARGEST = 0.1  # share of the noise that is given back at most, where there was little
LIMIT = 3.0  # standard deviations; a raindrop that was removed is no grain
NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute value


def grain(source: ImageBatch, anchor: ImageBatch, amplitude: float) -> ImageBatch:
    """The fine part of ``source - anchor``, both ``(B, C, H, W)``, mean of its channels, scaled to ``amplitude``.

    Clipped to what is noise in it: where most of the image was left alone, the median change and the grain are zero.

    Args:
        source: the noisy image.
        anchor: the restored image.
        amplitude: standard deviation of the grain, in the unit of the images; less where little noise was removed.
    """
    if not amplitude >= 0:
        raise ValueError(f"amplitude must not be negative, got {amplitude}")
    removed = (source - anchor).mean(1, keepdim=True)
    fine = removed - lowpass(removed, FINE)
    noise = NORMAL * fine.abs().flatten(1).median(1).values.view(-1, 1, 1, 1)
    share = LARGEST * (amplitude / (LARGEST * noise).clamp_min(torch.finfo(noise.dtype).tiny)).clamp(max=1)
    return (share * torch.minimum(torch.maximum(fine, -LIMIT * noise), LIMIT * noise)).expand_as(anchor)
