"""Simulated acquisitions as dictionary transforms: any model of ``degradations`` on the slices of a volume."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform, Randomizable
from numpy.typing import NDArray
from torch import Tensor

from monai_sasm.degradations.degradation import DegradationModel
from monai_sasm.degradations.kspace import KspaceNoise, KspaceTruncation, LowQualityMr
from monai_sasm.degradations.low_dose_ct import LowDoseCt, Scanner
from monai_sasm.transforms.itk import like, pixels_of, spacing_of
from monai_sasm.transforms.slice_alignment import slice_axis_of

SQUARE = 0.01  # part by which the two sides of a pixel may differ


class DegradeSlicesd(MapTransform, Randomizable, InvertibleTransform):
    """Each slice as a poorer acquisition would have given it, on the same grid.

    Strength is drawn once for the volume, as one scan has one dose and one resolution; the noise of each slice is its
    own. All randomness comes from ``set_random_state`` (or MONAI's ``set_determinism``). The inverse only takes the
    step off the record: what was not measured does not come back.

    Args:
        keys: keys with images ``(1, H, W)`` or volumes ``(1, I, J, K)`` in the unit of the model.
        model: see :class:`monai_sasm.degradations.degradation.DegradationModel`.
        slice_axis: see :class:`monai_sasm.transforms.slice_alignment.AlignSlicesd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        model: DegradationModel,
        slice_axis: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.model, self.slice_axis = model, slice_axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Degrade each image; shape and metadata stay."""
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            axis = None if image.ndim == 3 else slice_axis_of(image, self.slice_axis)
            values = pixels_of(image)
            slices = values[None] if axis is None else np.moveaxis(values, axis + 1, 0)  # (n, 1, H, W)
            if slices.shape[1] != 1:
                raise ValueError(
                    f"expected one channel, got {slices.shape[1]}; degrade channels under keys of their own"
                )
            degraded = self._degraded(slices, self.model_for(image, axis))
            result[key] = like(degraded[0] if axis is None else np.moveaxis(degraded, 0, axis + 1), image)
            self.push_transform(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The images as they are: grid and unit never changed."""
        result = dict(data)
        for key in self.key_iterator(result):
            self.pop_transform(result[key])
        return result

    def model_for(self, image: Tensor, slice_axis: int | None) -> DegradationModel:
        """The model for one image; subclasses whose model depends on the pixel spacing make it here."""
        return self.model

    def _degraded(self, slices: NDArray[np.float32], model: DegradationModel) -> NDArray[np.float32]:
        generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
        result = np.empty_like(slices)
        params: Any = None
        for index, one in enumerate(torch.from_numpy(np.ascontiguousarray(slices))):
            params = model.draw((1, *one.shape), generator) if index == 0 else _with_next_seed(params)
            result[index] = model.apply(one[None], params)[0].numpy()
        return result


def _with_next_seed(params: Any) -> Any:
    """The same draw with other noise, also that of a model within another; what has no noise is the same."""
    if isinstance(params, tuple):
        return tuple(_with_next_seed(part) for part in params)
    if not is_dataclass(params) or isinstance(params, type):
        return params
    changed = {
        field.name: value + 1 if field.name == "seed" else _with_next_seed(value)
        for field in fields(params)
        for value in [getattr(params, field.name)]
    }
    return replace(params, **changed)


class LowResolutionMrd(DegradeSlicesd):
    """MR at a lower in-plane resolution: the centre of k-space, zero-filled, with complex noise.

    Through-plane: :class:`monai_sasm.transforms.thick_slices.ThickSlicesd`.

    Args:
        keys: keys with MR images in working scale (1 is bright tissue; :class:`ToWorkingScaleInvertibled`), or in any
            unit with its white as ``scale``.
        factor: how many times fewer samples along both axes; a number, or a range to draw from.
        sigma: range of the noise's standard deviation, as a share of ``scale``.
        scale: intensity that counts as 1.
        slice_axis: see :class:`DegradeSlicesd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        factor: float | tuple[float, float] = 2.0,
        sigma: tuple[float, float] = (0.0, 0.0),
        scale: float = 1.0,
        slice_axis: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        low, high = (factor, factor) if isinstance(factor, (int, float)) else factor
        model = LowQualityMr(KspaceTruncation((low, high)), KspaceNoise((sigma[0], sigma[1]), scale))
        super().__init__(keys, model, slice_axis, allow_missing_keys)


class LowDoseCtd(DegradeSlicesd):
    """CT at a lower dose: noise made in the sinogram, for the pixel spacing of each image.

    Args:
        keys: keys with axial CT in HU.
        dose: fraction of the full dose; a number, or a range to draw from.
        kernel: ``soft`` or ``sharp``.
        scanner: photon statistics; calibrated ones by default.
        slice_axis: see :class:`DegradeSlicesd`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        dose: float | tuple[float, float] = 0.25,
        kernel: str = "soft",
        scanner: Scanner | None = None,
        slice_axis: int | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        self.dose = (float(dose), float(dose)) if isinstance(dose, (int, float)) else (dose[0], dose[1])
        self.kernel, self.scanner = kernel, scanner
        super().__init__(keys, self._model(1.0), slice_axis, allow_missing_keys)  # refuses wrong settings at once

    def model_for(self, image: Tensor, slice_axis: int | None) -> DegradationModel:
        """The dose model at the pixel spacing of ``image``."""
        first, second = (side for index, side in enumerate(spacing_of(image)) if index != slice_axis)
        if abs(first - second) > SQUARE * first:
            raise ValueError(
                f"the dose model needs square pixels, got {first:.3f} x {second:.3f} mm; resample the image"
            )
        return self._model(first)

    def _model(self, spacing: float) -> LowDoseCt:
        return LowDoseCt(spacing, dose=self.dose, kernel=self.kernel, scanner=self.scanner)
