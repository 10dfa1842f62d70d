"""MR whose background is zero, as much of it leaves the scanner or an anonymiser: noise is left in the head alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.types import ImageBatch, NoiseMap

CLOSED = 31  # pixels, odd: dark places of this size inside a head are not background


@dataclass(frozen=True)
class MaskedBackgroundParams:
    """One draw of :class:`MaskedBackground`.

    Args:
        chosen: of the degradation within.
        masked: (B,), whose background is zero.
        mask: (B, 1, H, W), where anything is changed.
    """

    chosen: Any
    masked: Tensor
    mask: NoiseMap

    @property
    def sigma(self) -> NoiseMap:
        """Noise map of the degradation within."""
        return self.chosen.sigma


class MaskedBackground:
    """A degradation, and then a background of zero in a share of the images.

    Args:
        degradation: what is done to the whole image.
        share: of the images, 0 to 1.
        threshold: what is darker and not enclosed by anything brighter is background, of a white of 1.
    """

    def __init__(self, degradation: DegradationModel, share: float = 0.5, threshold: float = 0.06) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie in [0, 1], got {share}")
        if not threshold > 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.degradation, self.share, self.threshold = degradation, share, threshold

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> MaskedBackgroundParams:
        """Draw for a batch ``(B, C, H, W)``."""
        chosen = self.degradation.draw(shape, generator)
        masked = torch.rand(shape[0], generator=generator) < self.share
        mask = torch.where(masked.view(-1, 1, 1, 1), torch.ones(()), chosen.mask)
        return MaskedBackgroundParams(chosen, masked, mask)

    def apply(self, clean: ImageBatch, params: MaskedBackgroundParams) -> ImageBatch:
        """Degrade, and set the background of the masked images to zero."""
        return self._masked(self.degradation.apply(clean, params.chosen), clean, params)

    def reference(self, clean: ImageBatch, params: MaskedBackgroundParams) -> ImageBatch:
        """What a perfect restoration returns, its background zero as well."""
        return self._masked(reference(self.degradation, clean, params.chosen), clean, params)

    def _masked(self, image: ImageBatch, clean: ImageBatch, params: MaskedBackgroundParams) -> ImageBatch:
        bright = (clean.amax(1, keepdim=True) > self.threshold).float()
        grown = F.max_pool2d(bright, CLOSED, 1, CLOSED // 2)
        head = -F.max_pool2d(-grown, CLOSED, 1, CLOSED // 2) > 0
        return torch.where(params.masked.view(-1, 1, 1, 1).to(clean.device) & ~head, torch.zeros_like(image), image)
