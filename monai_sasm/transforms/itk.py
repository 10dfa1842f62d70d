"""What transforms by NumPy and SimpleITK share: pixels, spacing and affine of a tensor, pixels put back, a rigid
registration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor


def pixels_of(image: Any) -> NDArray[np.float32]:
    """The numbers of a tensor of any type on any device, with or without a gradient; a view where possible."""
    return np.asarray(torch.as_tensor(image).detach().to("cpu", torch.float32))


def of_each_stack(steps: Sequence[Callable[[Tensor], Tensor]], image: Tensor) -> Tensor:
    """An image ``(C, *spatial)`` after one step, or after one for each of its time points, which ``C`` counts."""
    if len(steps) == 1:
        return steps[0](image)
    return torch.cat([step(part) for step, part in zip(steps, image.split(1), strict=True)])


def affine_of(image: Tensor) -> NDArray[np.float64]:
    """``(4, 4)`` voxel index to RAS mm; the identity where the tensor has no metadata."""
    return image.affine.double().numpy() if isinstance(image, MetaTensor) else np.eye(4)


def spacing_of(image: Tensor) -> tuple[float, ...]:
    """Voxel size in mm along each spatial axis of ``(C, *spatial)``."""
    sides = np.linalg.norm(affine_of(image)[:3, :3], axis=0)
    return tuple(float(side) for side in sides[: image.ndim - 1])


def rigid_search(levels: Sequence[tuple[int, float]]) -> Any:
    """A SimpleITK registration by gradient descent from coarse to fine; its metric and start are the caller's.

    Args:
        levels: shrink factor and smoothing of each level, coarse to fine.
    """
    import SimpleITK

    method = SimpleITK.ImageRegistrationMethod()
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=100, gradientMagnitudeTolerance=1e-7
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in levels])
    method.SetSmoothingSigmasPerLevel([smoothing for _, smoothing in levels])
    return method


def like(array: NDArray[np.float32], image: Tensor, affine: NDArray[np.float64] | None = None) -> Tensor:
    """New pixels with the device and metadata of ``image`` and, where given, another affine; float32."""
    pixels = torch.from_numpy(np.ascontiguousarray(array))
    pixels = pixels.to(image.device) if isinstance(image, Tensor) else pixels
    if not isinstance(image, MetaTensor):
        return pixels
    result = MetaTensor(pixels).copy_meta_from(image)
    if affine is not None:
        result.affine = torch.from_numpy(np.array(affine, np.float64))
    return result
