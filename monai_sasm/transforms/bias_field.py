"""N4 bias-field correction of MR, on a shrunken grid, with an inverse that puts the field back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform
from monai.utils.enums import TraceKeys
from numpy.typing import NDArray

from monai_sasm.transforms.itk import like, pixels_of, spacing_of

SMALLEST = 4  # voxels along an axis below which shrinking leaves N4 nothing to fit


class CorrectBiasFieldd(MapTransform, InvertibleTransform):
    """``corrected = image / field``, the field found by N4 (Tustison et al. 2010, IEEE TMI 29(6)) in SimpleITK.

    The field is smooth, so it is fitted on an image shrunk by ``shrink`` and evaluated on the full grid. Its geometric
    mean within the mask is 1, so that tissue keeps its level. The inverse multiplies it back.

    Args:
        keys: keys with MR magnitude ``(C, *spatial)``, two or three spatial axes; each channel has its own field.
        mask_key: key of a mask ``(1, *spatial)`` of the tissue to fit, above 0.5; by Otsu's threshold when ``None``.
        shrink: how many times fewer voxels along each axis the field is fitted on; fewer where an axis is short.
        iterations: at most so many at each level; the spline's mesh is twice as fine from level to level.
        convergence: relative change at which a level ends.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str | None = None,
        shrink: int = 4,
        iterations: Sequence[int] = (50, 50, 30),
        convergence: float = 1e-3,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if shrink < 1 or not iterations or min(iterations) < 1:
            raise ValueError(f"shrink and iterations are whole numbers from 1 on, got {shrink} and {tuple(iterations)}")
        self.mask_key, self.shrink = mask_key, shrink
        self.iterations, self.convergence = [int(count) for count in iterations], float(convergence)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Divide each image by its field."""
        result = dict(data)
        mask = None if self.mask_key is None else pixels_of(result[self.mask_key])[0] > 0.5
        for key in self.key_iterator(result):
            image = result[key]
            channels = pixels_of(image)
            field = np.stack([self._field(channel, spacing_of(image), mask) for channel in channels])
            result[key] = like(channels / field, image)
            self.push_transform(result[key], extra_info={"field": torch.from_numpy(field)})
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Multiply each image by its field."""
        result = dict(data)
        for key in self.key_iterator(result):
            field = self.pop_transform(result[key])[TraceKeys.EXTRA_INFO]["field"]
            result[key] = result[key] * torch.as_tensor(field).to(result[key].device)
        return result

    def _field(
        self, channel: NDArray[np.float32], spacing: Sequence[float], mask: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        import SimpleITK

        if mask is not None and (mask.shape != channel.shape or not mask.any()):
            raise ValueError(f"the mask must have tissue and the shape {channel.shape} of the image, got {mask.shape}")
        low, high = float(channel.min()), float(channel.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("the image must be finite for its bias field to be found, got NaN or infinite voxels")
        if high <= max(low, 0):
            return np.ones_like(channel)  # nothing but background
        # N4 works on logarithms; what is not positive is background and outside the mask anyway.
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.maximum(channel, 1e-6 * high).T))
        image.SetSpacing(list(spacing))
        if mask is None:
            tissue = SimpleITK.OtsuThreshold(image, 0, 1)
        else:
            tissue = SimpleITK.GetImageFromArray(np.ascontiguousarray(mask.T).astype(np.uint8))
            tissue.CopyInformation(image)
        factors = [max(1, min(self.shrink, size // SMALLEST)) for size in image.GetSize()]
        small, small_tissue = SimpleITK.Shrink(image, factors), SimpleITK.Shrink(tissue, factors)
        if not SimpleITK.GetArrayViewFromImage(small_tissue).any():
            raise ValueError(f"the mask has no voxel left on the grid shrunk by {factors}; set shrink lower")
        corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
        corrector.SetMaximumNumberOfIterations(self.iterations)
        corrector.SetConvergenceThreshold(self.convergence)
        corrector.Execute(small, small_tissue)
        logarithm = SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image)).T.astype(np.float32)
        inside = SimpleITK.GetArrayFromImage(tissue).T > 0
        return np.asarray(np.exp(logarithm - logarithm[inside].mean()), np.float32)
