"""Where there is something to restore: not in padding, in a background of zeros, in any region of one value, or in air.

A gate was never shown these on their own, and what it says of them is chance. Their experts' weight is zero, so that
they come back to the last bit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.functional.runs import in_squares
from monai_sasm.functional.tiling import bands
from monai_sasm.gate.routing import with_identity
from monai_sasm.types import ExpertWeights, ImageBatch, Modality

# Another rule than that of monai_sasm.restoration.shelter on purpose: that one promises pixels to the last bit and
# keeps rather too much; this one takes experts their weight, also in photos, where what is small is a highlight.
FLAT, FLAT_PICTURE = 7, 32  # pixels; side of a square of one value that is no chance (a picture's highlights are small)
_GROWTH = 4  # pixels by which such a region reaches on, where the value stays the same
_COARSE = 128  # blocks along the shorter side, on which the air around a body is found
_SWEEPS = 4  # of the search for air, along rows and columns; each may go around one more corner


def occupied(image: ImageBatch, modality: Modality) -> Tensor:
    """``(B, 1, H, W)``: 1 where the image shows something, 0 where nothing is, between them only around a body in air.

    Nothing is where a square of :data:`FLAT` pixels (:data:`FLAT_PICTURE` in pictures) has one value, and where such a
    region goes on. In modalities with a value of air (CT) nothing is also outside the body: in air that reaches the
    border of the image, so that lungs and bowel stay inside; about a thirtieth of the image's width around the body
    still belongs to it, the outer half fading out, lest the end of the restored region be seen.

    Args:
        image: ``(B, C, H, W)``, working scale.
        modality: of the image.
    """
    seen = (~flat(image, modality)).to(image.dtype)
    air = modality.profile.air
    return seen if air is None else seen * _body(image.mean(1, keepdim=True), air)


def confine(weights: ExpertWeights, seen: Tensor) -> ExpertWeights:
    """Weights ``(B, E, H, W)`` with those of all experts 0 where nothing is; ``seen`` see :func:`occupied`."""
    return with_identity(weights[:, 1:] * seen)


def flat(image: ImageBatch, modality: Modality) -> Tensor:
    """``(B, 1, H, W)`` bool: pixels in a square of one value, and what of that value they touch nearby."""
    side = FLAT_PICTURE if modality.profile.is_picture else FLAT
    height, reach = image.shape[-2], side + _GROWTH
    found = torch.empty_like(image[:, :1], dtype=torch.bool)
    for rows in bands(height, image.shape[-1]):
        top, bottom = max(0, rows.start - reach), min(height, rows.stop + reach)
        found[..., rows, :] = flat_whole(image[..., top:bottom, :], side)[..., rows.start - top : rows.stop - top, :]
    return found


def flat_whole(image: Tensor, side: int) -> Tensor:
    """:func:`flat` of an image as a whole."""
    across = (image[..., 1:] == image[..., :-1]).all(1, keepdim=True)  # (B, 1, H, W - 1)
    down = (image[..., 1:, :] == image[..., :-1, :]).all(1, keepdim=True)
    if min(image.shape[-2:]) < side:
        return torch.zeros_like(image[:, :1], dtype=torch.bool)
    found = in_squares(across, down, side)
    for _ in range(_GROWTH):
        left, right = F.pad(found[..., :-1] & across, (1, 0)), F.pad(found[..., 1:] & across, (0, 1))
        upper, lower = F.pad(found[..., :-1, :] & down, (0, 0, 1, 0)), F.pad(found[..., 1:, :] & down, (0, 0, 0, 1))
        found = found | left | right | upper | lower
    return found


def _body(image: Tensor, air: float) -> Tensor:
    """``(B, 1, H, W)`` in [0, 1]: 0 in air around the body."""
    height, width = image.shape[-2:]
    side = max(1, min(height, width) // _COARSE)
    blocks = F.avg_pool2d(image, side, ceil_mode=True, count_include_pad=False)
    smooth = F.avg_pool2d(blocks, 3, 1, 1, count_include_pad=False)
    inside = (~_reached(smooth < air)).to(image.dtype)
    solid = -F.max_pool2d(-inside, 3, 1, 1)  # without the specks that noise makes of air
    grown = F.max_pool2d(solid, 5, 1, 2)
    fading = F.avg_pool2d(grown, 3, 1, 1, count_include_pad=False)
    enlarged = F.interpolate(fading, scale_factor=side, mode="bilinear") if side > 1 else fading
    return enlarged[..., :height, :width]


def _reached(air: Tensor) -> Tensor:
    """Air ``(B, 1, h, w)`` that the border of the image reaches through air."""
    border = torch.ones_like(air)
    border[..., 1:-1, 1:-1] = False
    found = air & border
    for _ in range(_SWEEPS):
        before = found
        for axis in (-2, -1):
            place = torch.arange(air.shape[axis], device=air.device).view(-1, *[1] * (-axis - 1))
            for turned in (False, True):
                way, seeds = (one.flip(axis) if turned else one for one in (air, found))
                wall, seed = (torch.where(one, place, -1).cummax(axis).values for one in (~way, seeds))
                reached = way & (seed > wall)
                found = found | (reached.flip(axis) if turned else reached)
        if found.device.type == "cpu" and torch.equal(found, before):  # other devices would have to be waited for
            break
    return found
