"""Series of one examination brought onto one grid: T1, T2 and FLAIR of a patient who moved in between."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TraceKeys
from numpy.typing import NDArray
from torch import Tensor

from monai_sasm.transforms.itk import affine_of, like, rigid_search, to_array, to_itk

LEVELS = ((4, 4.0), (2, 2.0), (1, 0.0))  # shrink factor and smoothing in mm, coarse to fine
BINS, SHARE, SEED = 32, 0.2, 1  # of the joint histogram; part of the voxels that is sampled; the same ones every time


class AlignSeriesd(MapTransform, InvertibleTransform):
    """Each series registered rigidly to a reference series and resampled onto its grid.

    Mutual information (Mattes et al. 2003) compares sequences of different contrast; the search starts from the
    scanner's coordinates, which the series of one examination share. The inverse resamples onto the series' own grid,
    with shape and affine as they were.

    Args:
        keys: keys with volumes ``(C, I, J, K)`` with affine; the first channel is registered, the others follow.
        reference: key of the volume whose grid they take; it is left as it is.
        register: off, the scanner's coordinates are trusted and the series only resampled.
        order: interpolation, 1 linear or 3 cubic B-spline.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference: str,
        register: bool = True,
        order: int = 3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if order not in (1, 3):
            raise ValueError(f"order is 1 (linear) or 3 (cubic B-spline), got {order}")
        if reference in self.keys:
            raise ValueError(f"{reference!r} is the reference and stays as it is; leave it out of keys")
        self.reference, self.register, self.order = reference, register, order

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample each series onto the grid of the reference."""
        result = dict(data)
        onto = result[self.reference]
        for key in self.key_iterator(result):
            image = result[key]
            move = self._move(onto, image) if self.register else np.zeros(9)
            before = {
                "move": torch.from_numpy(move),
                "shape": torch.tensor(image.shape[1:]),
                "affine": torch.from_numpy(affine_of(image).copy()),
            }
            result[key] = self._resampled(image, tuple(onto.shape[1:]), affine_of(onto), _transform(move))
            self.push_transform(result[key], extra_info=before)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample each series onto the grid it came on."""
        result = dict(data)
        for key in self.key_iterator(result):
            before = self.pop_transform(result[key])[TraceKeys.EXTRA_INFO]
            transform = _transform(np.asarray(before["move"], np.float64)).GetInverse()
            shape = tuple(int(size) for size in before["shape"])
            result[key] = self._resampled(result[key], shape, np.asarray(before["affine"], np.float64), transform)
        return result

    def _move(self, fixed: Tensor, moving: Tensor) -> NDArray[np.float64]:
        """``(9,)``: three angles (rad), a shift (mm) and the centre of rotation (LPS mm), reference to series."""

        images = [to_itk(np.asarray(image[0], np.float32), affine_of(image)) for image in (fixed, moving)]
        sizes = images[0].GetSize()
        levels = [level for level in LEVELS if min(sizes) // level[0] >= 4] or [LEVELS[-1]]
        method = rigid_search(levels)
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(SHARE, SEED)
        method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
        middle = images[0].TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in sizes])
        method.SetInitialTransform(_transform(np.array([0.0] * 6 + list(middle))), inPlace=False)
        try:
            found = method.Execute(*images)
        except RuntimeError as error:
            raise ValueError(
                "the two series do not overlap in the scanner's coordinates or hold no contrast, so they cannot be "
                "registered; check that they are of one examination"
            ) from error
        return np.array([*found.GetParameters(), *middle])

    def _resampled(self, image: Tensor, shape: tuple[int, ...], affine: NDArray[np.float64], transform: Any) -> Tensor:
        import SimpleITK

        resampler = SimpleITK.ResampleImageFilter()
        resampler.SetReferenceImage(to_itk(np.zeros(shape, np.float32), affine))
        resampler.SetTransform(transform)
        resampler.SetInterpolator(SimpleITK.sitkBSpline if self.order == 3 else SimpleITK.sitkLinear)
        channels = [to_itk(channel, affine_of(image)) for channel in np.asarray(image, np.float32)]
        return like(np.stack([to_array(resampler.Execute(channel)) for channel in channels]), image, affine)


def _transform(move: NDArray[np.float64]) -> Any:
    import SimpleITK

    transform = SimpleITK.Euler3DTransform()
    transform.SetCenter([float(part) for part in move[6:]])
    transform.SetParameters([float(part) for part in move[:6]])
    return transform
