"""Thick slices made of thin ones, as a scanner would have acquired them, and thin ones interpolated back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TraceKeys

from monai_sasm.degradations.slice_profile import SliceProfile
from monai_sasm.io.finer_slices import old_index
from monai_sasm.transforms.itk import affine_of, like, pixels_of
from monai_sasm.transforms.slice_alignment import slice_axis_of


class ThickSlicesd(MapTransform, InvertibleTransform):
    """Through-plane downsampling: ``factor`` times fewer and thicker slices over the same extent.

    The inverse interpolates smooth thin slices that average to the thick ones, on the grid that was there before; with
    ``sinc`` this is the zero-filled reconstruction.

    Args:
        keys: keys with volumes ``(C, I, J, K)``.
        factor: thin slices in a thick one, above 1; the number of thick slices is rounded.
        profile: ``slab`` (2-D acquisition) or ``sinc`` (3-D, k-space truncation), see
            :mod:`monai_sasm.degradations.slice_profile`.
        slice_axis: see :class:`monai_sasm.transforms.slice_alignment.AlignSlicesd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        factor: float = 4.0,
        profile: str = "slab",
        slice_axis: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not factor > 1:
            raise ValueError(f"factor counts the thin slices in a thick one and must be above 1, got {factor}")
        SliceProfile(2, 2, profile)  # refuses an unknown profile at once
        self.factor, self.profile, self.slice_axis = factor, profile, slice_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Thicken the slices of each volume; its affine follows."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            axis = slice_axis_of(image, self.slice_axis)
            thin = int(image.shape[axis + 1])
            thick = round(thin / self.factor)
            if thick < 2:
                raise ValueError(
                    f"{thin} slices leave fewer than 2 when {self.factor:g} become one; give a thicker stack"
                )
            before = torch.from_numpy(affine_of(image).copy())
            stack = np.moveaxis(pixels_of(image), axis + 1, 0)
            averaged = np.moveaxis(SliceProfile(thick, thin, self.profile).measure(stack), 0, axis + 1)
            onto = np.linalg.inv(old_index(axis, thick, thin))
            result[key] = like(averaged, image, affine_of(image) @ onto)
            self.push_transform(result[key], extra_info={"affine": before, "slice_axis": axis, "thin": thin})
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Interpolate the thin slices back, on their grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            before = self.pop_transform(result[key])[TraceKeys.EXTRA_INFO]
            axis, thin = int(before["slice_axis"]), int(before["thin"])
            stack = np.moveaxis(pixels_of(result[key]), axis + 1, 0)
            interpolated = SliceProfile(len(stack), thin, self.profile).interpolate(stack)
            affine = np.asarray(before["affine"], np.float64)
            result[key] = like(np.moveaxis(interpolated, 0, axis + 1), result[key], affine)
        return result
