"""Two scans of one head on one grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

COILS = 12.0  # mm, standard deviation of the smoothing that shows how receivers differ
SEED = 1  # of the points that are compared
DIGITS = 6  # of radians and mm
BODY = 0.25  # of the 99th percentile; above it is tissue


def registered(fixed: Path, moving: Path) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """The fixed scan, the moving one on its grid and in its brightness, and the tissue that both show; ``(N, H, W)``.

    Rigid, by mutual information (Mattes et al. 2003), cubic B-splines. The ratio of both scans, smoothed over
    :data:`COILS`, is taken off, for coils and receivers differ from day to day. The fixed scan is not resampled.

    Args:
        fixed, moving: NIfTI files of the same contrast.
    """
    import SimpleITK as sitk  # noqa: N813

    target, source = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (fixed, moving))
    placed = sitk.Resample(source, target, _rigid(target, source), sitk.sitkBSpline, 0.0)
    first, second = (sitk.GetArrayFromImage(one).astype(np.float32) for one in (target, placed))

    def smooth(values: NDArray[np.float32], width: float) -> NDArray[np.float32]:
        image = sitk.GetImageFromArray(values)
        image.SetSpacing(target.GetSpacing())
        found: NDArray[np.float32] = sitk.GetArrayFromImage(sitk.SmoothingRecursiveGaussian(image, width))
        return found

    tissue = np.logical_and(*(smooth(one, 2.0) > BODY * np.percentile(one, 99) for one in (first, second)))
    ratio = smooth(first * tissue, COILS) / np.maximum(smooth(second * tissue, COILS), 1e-3)
    return first, np.asarray(second * ratio, np.float32), tissue


def _rigid(target: Any, source: Any) -> Any:
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)  # sums of several threads differ from run to run, and so does what follows
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1, SEED)  # points are moved within their cells, without a seed by the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 150)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([3, 2, 1])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    middle = sitk.CenteredTransformInitializerFilter.MOMENTS
    start = sitk.CenteredTransformInitializer(target, source, sitk.VersorRigid3DTransform(), middle)
    method.SetInitialTransform(start)
    found = method.Execute(target, source)
    found.SetParameters([round(value, DIGITS) for value in found.GetParameters()])  # what threads still differ in
    return found
