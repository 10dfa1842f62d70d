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
LIMIT = 3.0  # standard deviations; a raindrop that was removed is no grain
NORMAL = 1.4826  # standard deviation of a normal distribution over its median absolute value


def grain(source: ImageBatch, anchor: ImageBatch, share: float) -> ImageBatch:
    """``share`` of the fine part of ``source - anchor``, both ``(B, C, H, W)``, mean of its channels, the same in each.

    Clipped to what is noise in it: where most of the image was left alone, the median change and the grain are zero.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    removed = (source - anchor).mean(1, keepdim=True)
    fine = removed - lowpass(removed, FINE)
    limit = LIMIT * NORMAL * fine.abs().flatten(1).median(1).values.view(-1, 1, 1, 1)
    return share * torch.minimum(torch.maximum(fine, -limit), limit).expand_as(anchor)
