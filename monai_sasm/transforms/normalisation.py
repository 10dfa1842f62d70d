"""Intensity normalisation that MONAI's ``Invertd`` undoes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import astuple
from typing import Any

from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TraceKeys

from monai_sasm.functional.intensity import Scaling, scaling_for
from monai_sasm.io.volume import Volume
from monai_sasm.transforms.itk import of_each_stack, pixels_of
from monai_sasm.types import Modality


class ToWorkingScaleInvertibled(MapTransform, InvertibleTransform):
    """Unit of the image -> working scale of the networks, by :func:`monai_sasm.functional.intensity.scaling_for`.

    CT: HU / 1000; MR: the 99.5th percentile of the foreground of each time point (channel) becomes 1; photos are left
    as they are. Nothing is clipped, and the inverse uses the numbers of the forward pass, whatever was done to the
    image meanwhile.

    Args:
        keys: keys with images ``(C, *spatial)`` in HU, MR magnitude or sRGB [0, 1].
        modality: ``"CT"``, ``"MR"`` or ``"PHOTO"``.
    """

    def __init__(self, keys: KeysCollection, modality: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.modality = Modality(modality)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale each image; shape and metadata stay."""
        result = dict(data)
        for key in self.key_iterator(result):
            scalings = [scaling_for(one) for one in Volume(pixels_of(result[key]), self.modality).stacks()]
            result[key] = of_each_stack([one.forward for one in scalings], result[key])
            self.push_transform(result[key], extra_info={"scalings": [astuple(one) for one in scalings]})
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Scale each image back to its unit."""
        result = dict(data)
        for key in self.key_iterator(result):
            applied = self.pop_transform(result[key])[TraceKeys.EXTRA_INFO]
            back = [Scaling(float(offset), float(scale)).inverse for offset, scale in applied["scalings"]]
            result[key] = of_each_stack(back, result[key])
        return result
