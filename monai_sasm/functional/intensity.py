"""Reversible intensity scalings: every image enters a network in about [0, 1] and leaves in its own unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from monai_sasm.io.volume import Volume
from monai_sasm.types import Modality

if TYPE_CHECKING:
    from torch import Tensor

HU_PER_UNIT = Modality.CT.profile.scale
SQUARE = 0.01  # part by which the two in-plane pixel spacings may differ
_SAMPLES = 2_000_000  # voxels that are enough for a percentile

Array = TypeVar("Array", "NDArray[np.float32]", "Tensor")


@dataclass(frozen=True)
class Scaling:
    """The straight line between an image's own unit and the working scale of the networks.

    ``forward(x) = (x - offset) / scale``. Nothing is clipped: values outside the usual window pass through
    unharmed, and ``inverse(forward(x))`` is ``x`` to float rounding. A larger ``scale`` makes working values smaller.

    Args:
        offset: value of the image that becomes 0, in the unit of the image.
        scale: span of the image that becomes 1, in the same unit; above 0 and finite.
    """

    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.offset) and np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"a scaling needs a finite offset and a scale above 0, got {self.offset} and {self.scale}")

    def forward(self, array: Array) -> Array:
        """Unit of the image -> working scale; NumPy array or torch tensor of any shape."""
        shifted = array - self.offset
        shifted /= self.scale  # where it is: fresh memory costs more than the division
        return shifted

    def inverse(self, array: Array) -> Array:
        """Working scale -> unit of the image."""
        return array * self.scale + self.offset

    def difference(self, array: Array) -> Array:
        """Differences and noise standard deviations -> working scale (no offset)."""
        return array / self.scale

    def inverse_difference(self, array: Array) -> Array:
        """Differences and noise standard deviations in the working scale -> unit of the image."""
        return array * self.scale


def scaling_for(volume: Volume) -> Scaling:
    """The scaling of one image.

    As the profile of its modality says. CT: HU / 1000. MR: the 99.5th percentile of the voxels above the mean of all
    voxels (a robust white; the mean parts background from tissue) becomes 1; an image without such voxels is not
    scaled. Photos are in [0, 1] already.
    """
    profile = volume.modality.profile
    if profile.percentile is not None:
        return Scaling(0.0, _robust_white(volume.array, profile.percentile))
    return Scaling(0.0, profile.scale)


def scalings_for(volume: Volume) -> list[Scaling]:
    """The scaling of each slice of :meth:`Volume.each_slice`: that of its time point.

    Time points may differ in brightness: diffusion at b = 3000 is a tenth as bright as without. Each is shown to
    networks as it would be alone.
    """
    return [one for stack in map(scaling_for, volume.stacks()) for one in [stack] * volume.stack_length]


def _robust_white(array: NDArray[np.float32], percentile: float) -> float:
    step = max(1, int(np.ceil((array.size / _SAMPLES) ** (1 / (array.ndim - 1)))))
    grid = (slice(None), *(slice(None, None, step if size > step else 1) for size in array.shape[1:]))
    sample = array[grid]
    sample = sample[np.isfinite(sample)]
    foreground = sample[sample > sample.mean(dtype=np.float64)] if sample.size else sample
    white = float(np.percentile(foreground, percentile)) if foreground.size else 0.0
    return white if np.isfinite(white) and white > 0 else 1.0


def square_spacing(volume: Volume) -> float:
    """In-plane spacing of the square pixels of a volume, mm.

    Raises:
        ValueError: it is not known, or the pixels are not square.
    """
    if volume.affine is None:
        raise ValueError("the pixel spacing is not known, and the dose model needs it in mm")
    axes = [axis for axis in range(volume.array.ndim - 1) if axis != volume.slice_axis]
    first, second = (float(np.linalg.norm(volume.affine[:3, axis])) for axis in axes)
    if abs(first - second) > SQUARE * first:
        raise ValueError(f"the dose model needs square pixels, got {first:.3f} x {second:.3f} mm; resample the image")
    return first
