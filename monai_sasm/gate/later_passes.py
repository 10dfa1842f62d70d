"""What a later pass over an image may do, given what the earlier ones found and did.

With ``w_p`` the gate's weights on pass ``p``, an expert ``e`` acts with

    a_p[e] = w_p[e] . (1 - a_1[e] - ... - a_(p-1)[e])

where its fault was found before or shows on much of the image, and not at all elsewhere; the identity has the rest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monai_sasm.gate.pixel_weights import Part, PixelWeights
from monai_sasm.types import ExpertWeights

CONVINCING = 0.5  # mean weight over an image of a fault that only shows after another one was repaired


class EarlierPasses:
    """The faults that passes over a batch of images have found, and how far they were repaired."""

    def __init__(self) -> None:
        self._known: Tensor | None = None  # (B, E) bool
        self._spent: list[PixelWeights] = []

    def allow(self, weights: PixelWeights) -> PixelWeights:
        """The weights ``(B, E, H, W)`` with which the next pass acts; on the first pass those that are given.

        Two rules hold later passes back, each expert in each pixel and each fault in each image:

        - What an expert has repaired is repaired: what it left behind, it does not see better the second time.
        - A fault that no earlier pass saw has to show on much of the image. A restored image is smoother than most, and
          a gate takes smooth parts for wet ones now and then; a fault that lies under another one everywhere, drops
          under noise, shows on a large part of the image as soon as the other is gone.

        Returns:
            Weights that sum to one; what an expert may not do is left to the identity, class 0.
        """
        if self._known is not None:
            weights = self._held_back(weights, self._known)
            self._known = self._known | weights.present()
        else:
            self._known = weights.present()
        self._spent.append(weights)
        return weights

    def _held_back(self, weights: PixelWeights, known: Tensor) -> PixelWeights:
        act = (known | (weights.mean() >= CONVINCING))[:, 1:, None, None]
        earlier = tuple(self._spent)

        def part(where: Part) -> ExpertWeights:
            left = act.float()
            for one in earlier:
                left = left - one.part(where)[:, 1:]
            acting = weights.part(where)[:, 1:] * left.clamp_min(0)
            return torch.cat([1 - acting.sum(1, keepdim=True), acting], 1)

        return PixelWeights(weights.shape, part)
