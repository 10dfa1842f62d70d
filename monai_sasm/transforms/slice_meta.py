"""Which axis of a tensor counts its slices and how far they lie apart, whatever transforms turned or resampled it.

The metadata name the direction of the stack in space, which stays; the axis and the distance follow from the affine,
which every spatial transform of MONAI keeps right. Tensors without a direction are taken by what they say themselves:
``slice_axis``, ``slices_close`` and ``slice_distance``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from monai_sasm.functional.neighbours import Placed, adjacent, neighbours_of, stack_distance

DIRECTION = "slice_direction"


def slice_meta(volume: Placed) -> dict[str, Any]:
    """What the metadata of a volume say of its slices; nothing of an image that has none."""
    axis = volume.slice_axis
    if axis is None:
        return {}
    meta: dict[str, Any] = {
        "slice_axis": axis,
        "slices_close": bool(neighbours_of(volume, 1)),
        "slice_distance": stack_distance(volume) or 0.0,
    }
    if volume.affine is not None and (side := np.linalg.norm(volume.affine[:3, axis])) > 0:
        meta[DIRECTION] = torch.from_numpy(volume.affine[:3, axis] / side)
    return meta


def told_axis(image: Tensor) -> int | None:
    """Spatial axis that counts the slices of ``(C, *spatial)`` or of a batch ``(B, C, *spatial)``, 0 to 2."""
    turned = _turned(image)
    if turned is not None:
        return turned[1]
    told = _told(image, "slice_axis")
    return None if told is None else int(told)


def slices_close(image: Tensor) -> bool:
    """Whether neighbouring slices tell something of each other, see :mod:`monai_sasm.functional.neighbours`."""
    turned = _turned(image)
    if turned is None:
        return bool(_told(image, "slices_close") or False)
    return slice_distance(image) > 0 and adjacent(*turned)


def slice_distance(image: Tensor) -> float:
    """mm between slices; 0 where they are not at equal steps, or nothing is known of them."""
    told, turned = float(_told(image, "slice_distance") or 0), _turned(image)
    return told if turned is None or not told else float(np.linalg.norm(turned[0][:3, turned[1]]))


def _turned(image: Tensor) -> tuple[NDArray[np.float64], int] | None:
    """The affine ``(4, 4)`` and the axis that now lies along the stack; of a batch those of its first image."""
    if not isinstance(image, MetaTensor):
        return None
    direction = image.meta.get(DIRECTION)
    if direction is None or image.affine.shape[-2:] != (4, 4):
        return None
    affine = image.affine.double().reshape(-1, 4, 4)[0].numpy()
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not sides.all():
        return None
    along = torch.as_tensor(direction).double().reshape(-1, 3)[0].numpy() @ (affine[:3, :3] / sides)
    return affine, int(np.argmax(np.abs(along)))


def _told(image: Tensor, key: str) -> Any:
    """What the metadata say, one number; those of a batch are collated: one number per volume."""
    told = image.meta.get(key) if isinstance(image, MetaTensor) else None
    return None if told is None else torch.as_tensor(told).flatten()[0].item()
