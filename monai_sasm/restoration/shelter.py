"""What of a CT or MR slice networks are not shown, and never change: padding, constant background, values out of range.

Scanners and tools fill what they did not measure with constants: zeros around a stripped brain, -2000 HU outside of the
field of view. Networks were trained on measured values; a cliff of 1000 HU bends what lies beside it, and a background
that is no longer exactly zero breaks masks. A constant is recognised by itself, whether a header declares it or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from monai_sasm.functional.neighbours import fit_neighbours
from monai_sasm.functional.runs import in_squares
from monai_sasm.types import ImageBatch, Modality, ModalityProfile

_BLOCK = 5  # pixels; squares of one value are constant by intent: clipped noise has none of this size
_FRINGE = 3  # pixels of the same value by which such squares grow into corners
_FAR = 64  # pixels that padding reaches beyond such squares
_HALO = 8  # pixels around values above the range (metal) where changes are limited
_LIMIT = 0.05  # of the span that is 1 in working scale: 50 HU
_AIR_LIKE = 0.1  # in working scale above the lower end: constants up to there look like air to a network


@dataclass(frozen=True)
class Sheltered:
    """Slices as networks may see them, and the way back.

    Args:
        image: ``(B, C, H, W)`` in working scale, as it came.
        seen: same shape, for the gate and for noise estimates: within the trained range, padding as air.
        kept: bool, same shape: pixels that come back to the last bit.
        padding: bool, same shape: those of them that were never measured.
        near: bool, same shape: pixels beside values above the range; ``None`` where there are none.
    """

    image: ImageBatch
    seen: ImageBatch
    kept: Tensor
    padding: Tensor
    near: Tensor | None = None

    def for_experts(self, current: ImageBatch) -> ImageBatch:
        """Slices that were made of ``seen``, with padding that continues what it borders.

        A cliff, to air as well, pulls at what lies beside it; a smooth continuation does not.
        """
        return _continued(current, self.padding)

    def result(self, restored: ImageBatch) -> ImageBatch:
        """``restored``, which was made of ``seen``, where networks may change the image."""
        if self.near is not None:
            limited = torch.minimum(torch.maximum(restored, self.image - _LIMIT), self.image + _LIMIT)
            restored = torch.where(self.near, limited, restored)
        return torch.where(self.kept, self.image, restored)


def sheltered(image: ImageBatch, profile: ModalityProfile) -> Sheltered:
    """The slices ``image`` ``(B, C, H, W)``, working scale, of a modality that is no picture; each for itself."""
    if len(image) > 1:
        each = [sheltered(one[None], profile) for one in image]
        seen, kept, padding = (
            torch.cat(parts) for parts in zip(*((one.seen, one.kept, one.padding) for one in each), strict=True)
        )
        beside = [torch.zeros_like(one.kept) if one.near is None else one.near for one in each]
        anywhere = any(one.near is not None for one in each)
        return Sheltered(image, seen, kept, padding, torch.cat(beside) if anywhere else None)
    kept = constant_regions(image)
    if profile.nonnegative:  # with background at the darkest value, single pixels of it are background, too
        darkest = image == image.amin((1, 2, 3), keepdim=True)
        kept = kept | (darkest & (kept & darkest).flatten(1).any(1)[:, None, None, None])
    if profile.trained is None:
        return Sheltered(image, image, kept, torch.zeros_like(kept))
    air, white = (end / profile.scale for end in profile.trained)
    within, high = image.clamp(air, white), image > white
    below = image < air
    padding = below & torch.isin(image, image[kept & below].unique()) if below.any() else below
    for value in _border(image)[_border(kept)].unique():  # nothing that was measured is constant there, but clipped air
        if air + _AIR_LIKE < value < white:
            padding = padding | _grown(kept & (image == value), image == value)
    near = _largest(high.float(), 2 * _HALO + 1) > 0 if high.any() else None
    return Sheltered(image, within.masked_fill(padding, air), kept | padding | (within != image), padding, near)


def run_sheltered(
    slab: ImageBatch, modality: Modality, run: Callable[[ImageBatch, ImageBatch], ImageBatch]
) -> ImageBatch:
    """One network on slices of a modality that is no picture, as the pipeline runs a named expert.

    Args:
        slab: ``(B, C, H, W)``, or between neighbours ``(B, (2 n + 1) C, H, W)``, working scale, as they came.
        modality: of the slices.
        run: (what the network is shown, in the shape of ``slab``; what its noise is estimated from, ``(B, C, H, W)``)
            -> restored ``(B, C, H, W)``.
    """
    image = fit_neighbours(slab, 0, modality.profile.channels)
    shelter = sheltered(image, modality.profile)
    alone = slab.shape[1] == image.shape[1]
    shown = shelter.for_experts(shelter.seen) if alone else neighbours_for_experts(slab, modality)
    return shelter.result(above_darkest(run(shown, shelter.seen), shelter.seen, modality.profile))


def above_darkest(restored: ImageBatch, start: ImageBatch, profile: ModalityProfile) -> ImageBatch:
    """No magnitude is negative, however dark the surroundings are drawn; other modalities are left as they are."""
    if not profile.nonnegative:
        return restored
    return torch.maximum(restored, start.amin((1, 2, 3), keepdim=True).clamp_max(0))


def darkest(native: NDArray[np.float32], profile: ModalityProfile) -> float | None:
    """What a restored slice does not fall below, in the unit of the image; ``None`` where there is no such value."""
    return min(0.0, float(native.min())) if profile.nonnegative else None


def with_change(
    native: NDArray[np.float32], change: NDArray[np.floating], floor: float | None = None
) -> NDArray[np.float32]:
    """Their sum, but no less than :func:`darkest`: rounding takes a magnitude that is all but 0 below it."""
    restored: NDArray[np.float32] = native + change
    return restored if floor is None else np.maximum(restored, np.float32(floor), out=restored)


def neighbours_for_experts(slab: ImageBatch, modality: Modality) -> ImageBatch:
    """:meth:`Sheltered.for_experts` of slices between their neighbours ``(B, (2 n + 1) C, H, W)``, as they came."""
    shelter = sheltered(slab.flatten(0, 1)[:, None], modality.profile)
    return shelter.for_experts(shelter.seen).reshape(slab.shape)


def constant_regions(image: ImageBatch) -> Tensor:
    """Bool, the shape of ``image``: pixels in squares of exactly one value, and those of that value next to them."""
    if min(image.shape[-2:]) < _BLOCK:
        return torch.zeros_like(image, dtype=torch.bool)
    pairs = [(one, other, image[one] == image[other]) for one, other in _neighbours()]
    kept = in_squares(pairs[0][2], pairs[1][2], _BLOCK)
    for _ in range(_FRINGE if kept.any() else 0):
        for one, other, alike in pairs:
            kept[one] |= kept[other] & alike
            kept[other] |= kept[one] & alike
    return kept


def _border(image: Tensor) -> Tensor:
    """``(B, C, N)``: the outermost pixels, those of the corners twice."""
    return torch.cat([image[..., 0, :], image[..., -1, :], image[..., 0], image[..., -1]], -1)


def _neighbours() -> Iterator[tuple[Any, Any]]:
    """Index pairs of all pixels and their neighbours to the right, below, and on both diagonals."""
    first, last, whole = slice(None, -1), slice(1, None), slice(None)
    yield (..., whole, first), (..., whole, last)
    yield (..., first, whole), (..., last, whole)
    yield (..., first, first), (..., last, last)
    yield (..., first, last), (..., last, first)


def _grown(region: Tensor, alike: Tensor) -> Tensor:
    """The region with what hangs together with it through pixels that are alike."""
    for _ in range(_FAR):
        grown = (_largest(region.float(), 3) > 0) & alike
        if torch.equal(grown, region):
            break
        region = grown
    return region


def _largest(image: Tensor, side: int) -> Tensor:
    """The largest value in the square around each pixel, as far as it lies in the image."""
    return F.max_pool2d(image, side, 1, side // 2)


def _continued(image: ImageBatch, missing: Tensor) -> ImageBatch:
    """Missing pixels from means of what is known around them, the wider the farther it is (push-pull, Gortler 1996)."""
    if not missing.any() or missing.all() or min(image.shape[-2:]) < 2:
        return image
    height, width = image.shape[-2:]
    margin = (0, width % 2, 0, height % 2)
    known = F.avg_pool2d(F.pad((~missing).to(image), margin), 2)
    total = F.avg_pool2d(F.pad(image.masked_fill(missing, 0), margin), 2)
    coarse = _continued(total / known.clamp_min(torch.finfo(image.dtype).tiny), known == 0)
    finer = F.interpolate(coarse, scale_factor=2, mode="bilinear")[..., :height, :width]
    return torch.where(missing, finer, image)
