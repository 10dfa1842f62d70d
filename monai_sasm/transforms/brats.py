"""What brain tumour images need around a segmenter: a background of zero, and labels from overlapping regions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor


def foreground(image: Tensor) -> Tensor:
    """Where an image is not 0: ``select_fn`` of MONAI's ``CropForegroundd``."""
    return image != 0


class ZeroBackgroundd(MapTransform):
    """Set the background of skull-stripped images to 0, where it is another constant.

    Some copies of BraTS are z-scored after skull-stripping, so that their background is a negative constant; transforms
    that look at "nonzero" voxels take it for brain then. The background is what equals the first voxel.

    Args:
        keys: images ``(C, *spatial)``; each channel has its own background.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Type and metadata stay."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = torch.as_tensor(result[key])
            corner = image.flatten(1)[:, 0].reshape(-1, *[1] * (image.ndim - 1))
            result[key] = torch.where(image == corner, torch.zeros_like(image), image)
        return result


class BratsRegionsToLabelsd(MapTransform):
    """Tumour core, whole tumour and enhancing tumour ``(3, *spatial)`` -> labels ``(1, *spatial)`` of BraTS 2018.

    The inverse of MONAI's ``ConvertToMultiChannelBasedOnBratsClassesd`` where the regions lie in one another; where
    they do not, the smaller region wins.

    Args:
        keys: regions, 0 and 1.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour, 0 elsewhere."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = brats_labels(torch.as_tensor(result[key]))
        return result


def brats_labels(regions: Tensor) -> Tensor:
    """See :class:`BratsRegionsToLabelsd`."""
    if regions.shape[0] != 3:
        raise ValueError(f"tumour core, whole tumour and enhancing tumour are 3 channels, got {regions.shape[0]}")
    core, whole, enhancing = (regions[[channel]] > 0.5 for channel in range(3))
    labels = torch.zeros_like(regions[:1])
    for region, label in ((whole, 2), (core, 1), (enhancing, 4)):
        labels = torch.where(region, torch.full_like(labels, label), labels)
    return labels
