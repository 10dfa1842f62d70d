"""The mean of what a network makes of an image flipped and turned (self-ensemble, Timofte et al. 2016, section 3.3).

A network trained on flipped and turned images errs differently on each of them; the mean errs less, at a multiple of
the time. Importing this file loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from monai_sasm.types import ImageBatch, NoiseMap

    Restore = Callable[[ImageBatch, NoiseMap], ImageBatch]

COUNTS = (1, 2, 4, 8)
"""1: the image as it is; 2: and mirrored; 4: both upside down, too; 8: all of them turned by a quarter, too."""


def self_ensemble(restore: Restore, count: int) -> Restore:
    """``restore``, of which the mean correction over ``count`` of the flips and turns of a square is added.

    A pixel that none of them changes keeps its value to the last bit.

    Args:
        restore: ``(image, sigma) -> image``; the image may come between its neighbours.
        count: one of :data:`COUNTS`; 1 returns ``restore`` itself.
    """
    from monai_sasm.functional.neighbours import fit_neighbours

    check_count(count)
    if count == 1:
        return restore

    def mean(image: ImageBatch, sigma: NoiseMap) -> ImageBatch:
        total: Any = 0
        for number in range(count):
            seen = turned(image, number)
            restored = restore(seen, turned(sigma, number))
            total = total + turned_back(restored - fit_neighbours(seen, 0, restored.shape[1]), number)
        return fit_neighbours(image, 0, total.shape[1]) + total / count

    return mean


def check_count(count: int) -> None:
    """Raise ValueError unless it is one of :data:`COUNTS`."""
    if count not in COUNTS:
        raise ValueError(f"self_ensemble counts flips and turns, one of {', '.join(map(str, COUNTS))}, got {count}")


def turned(image: Tensor, number: int) -> Tensor:
    """The image ``(..., H, W)`` in one of eight ways, 0 as it is: mirrored (1), upside down (2), transposed (4)."""
    image = image.flip(-1) if number & 1 else image
    image = image.flip(-2) if number & 2 else image
    return image.transpose(-1, -2) if number & 4 else image


def turned_back(image: Tensor, number: int) -> Tensor:
    """Inverse of :func:`turned`."""
    image = image.transpose(-1, -2) if number & 4 else image
    image = image.flip(-2) if number & 2 else image
    return image.flip(-1) if number & 1 else image
