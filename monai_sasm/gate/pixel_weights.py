"""Mixing weights of pixels that are worked out where they are asked for.

A large photo and the maps of all classes for it do not fit into memory together; weights of blocks of pixels, and what
is flat, take little, and the maps of a tile follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from monai_sasm.functional.precision import widest
from monai_sasm.functional.tiling import bands, cut
from monai_sasm.gate.mobilenet import STRIDE
from monai_sasm.gate.occupied import confine, flat, occupied
from monai_sasm.gate.routing import enlarge
from monai_sasm.types import ExpertWeights, ImageBatch, Modality

SEEN = 0.01  # share of an image in which a class outweighs the others: its fault is there

Part = tuple[slice, slice]


class PixelWeights:
    """Weights ``(B, E, H, W)``; class 0 is the identity.

    Args:
        shape: ``(B, E, H, W)``.
        part: rows and columns -> weights there, ``(B, E, h, w)``.
    """

    def __init__(self, shape: tuple[int, ...], part: Callable[[Part], ExpertWeights]) -> None:
        self.shape, self._part = shape, part
        self._whole: ExpertWeights | None = None

    def part(self, where: Part) -> ExpertWeights:
        """Weights in some rows and columns, ``(B, E, h, w)``; not to be changed: those of a small image are kept."""
        if where != self._everywhere() or len(list(bands(*self.shape[2:]))) > 1:
            return self._part(where)
        if self._whole is None:
            self._whole = self._part(where)
        return self._whole

    def _everywhere(self) -> Part:
        return slice(0, self.shape[2]), slice(0, self.shape[3])

    @classmethod
    def of(cls, weights: ExpertWeights | PixelWeights) -> PixelWeights:
        """Maps that are there already, or the same weights."""
        if isinstance(weights, PixelWeights):
            return weights
        return cls(tuple(weights.shape), lambda where: cut(weights, where))

    @classmethod
    def of_blocks(cls, blocks: ExpertWeights, image: ImageBatch, modality: Modality, floor: float) -> PixelWeights:
        """Of a gate's blocks ``(B, E, ceil(H / 8), ceil(W / 8))``, 0 for experts where an image shows nothing."""
        size = tuple(image.shape[-2:])
        shape = (*blocks.shape[:2], *size)
        if blocks.shape[2:] != tuple(-(-side // STRIDE) for side in size) or modality.profile.air is not None:
            return cls.of(confine(enlarge(blocks, (size[0], size[1]), floor), occupied(image, modality)))
        seen = ~flat(image, modality)

        def part(where: Part) -> ExpertWeights:
            around = tuple(slice(max(0, one.start // STRIDE - 1), -(-one.stop // STRIDE) + 1) for one in where)
            some = blocks[..., around[0], around[1]]
            whole = enlarge(some, (STRIDE * some.shape[-2], STRIDE * some.shape[-1]), floor)
            rows, columns = (
                slice(one.start - STRIDE * wide.start, one.stop - STRIDE * wide.start)
                for one, wide in zip(where, around, strict=True)
            )
            return confine(cut(whole, (rows, columns)), cut(seen, where))

        return cls(shape, part)

    def bands(self) -> Iterator[ExpertWeights]:
        """The weights of some rows after the other."""
        return (self.part((rows, slice(0, self.shape[3]))) for rows in bands(*self.shape[2:]))

    def whole(self) -> ExpertWeights:
        """All of them."""
        return self.part(self._everywhere())

    def mean(self) -> Tensor:
        """``(B, E)``: the mean of each class over each image."""
        return self._share(lambda weights: weights)

    def present(self) -> Tensor:
        """Which classes outweigh all others somewhere in an image, ``(B, E)`` bool."""
        return self._share(lambda weights: (weights > 0.5).float()) > SEEN

    def all_identity(self, least: float) -> list[bool]:
        """Of each image, whether the identity's weight is above ``least`` everywhere."""
        lowest = torch.stack([band[:, 0].amin((1, 2)) for band in self.bands()]).amin(0)
        return [bool(one > least) for one in lowest]

    def _share(self, what: Callable[[ExpertWeights], Tensor]) -> Tensor:
        shares = map(what, self.bands())
        total = sum(share.sum((2, 3), dtype=widest(share.device)) for share in shares)
        return (total / (self.shape[2] * self.shape[3])).float()  # type: ignore[union-attr]
