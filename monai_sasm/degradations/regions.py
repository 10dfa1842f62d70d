"""Several faults in one picture, each in a smooth region of its own: what soft mixing of experts is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_sasm.degradations.degradation import DegradationModel, reference
from monai_sasm.degradations.mask import region_weights
from monai_sasm.types import ImageBatch, NoiseMap


class InRegions:
    """Faults that share a picture; one region more stays as it is.

    Args:
        degradations: the faults.
        softness: of the regions' borders, see :func:`monai_sasm.degradations.mask.region_weights`.
    """

    def __init__(self, degradations: Sequence[DegradationModel], softness: float = 0.1) -> None:
        self.degradations, self.softness = list(degradations), softness

    def draw(self, shape: tuple[int, int, int, int], generator: torch.Generator) -> InRegionsParams:
        """Draw regions and the parameters of every fault for a batch ``(B, C, H, W)``."""
        regions = region_weights(shape, len(self.degradations) + 1, generator, softness=self.softness)
        return InRegionsParams(regions, tuple(model.draw(shape, generator) for model in self.degradations))

    def apply(self, clean: ImageBatch, params: InRegionsParams) -> ImageBatch:
        """Apply each fault as far as its region's weight."""
        faulty = [model.apply(clean, drawn) for model, drawn in zip(self.degradations, params.drawn, strict=True)]
        return _mixed(clean, faulty, params)

    def reference(self, clean: ImageBatch, params: InRegionsParams) -> ImageBatch:
        """What a perfect restoration returns, see :func:`monai_sasm.degradations.degradation.reference`."""
        wanted = [reference(model, clean, drawn) for model, drawn in zip(self.degradations, params.drawn, strict=True)]
        return _mixed(clean, wanted, params)


def _mixed(clean: ImageBatch, images: Sequence[ImageBatch], params: InRegionsParams) -> ImageBatch:
    """Each of ``images`` as far as its region's weight."""
    mixed = clean
    for index, image in enumerate(images):
        if image is not clean:
            mixed = mixed + params.regions[:, index : index + 1].to(clean) * (image - clean)
    return mixed


@dataclass(frozen=True)
class InRegionsParams:
    """One draw of :class:`InRegions`.

    Args:
        regions: weights ``(B, K + 1, H, W)``, the last of the untouched region.
        drawn: parameters of each fault, as if it acted everywhere.
    """

    regions: Tensor
    drawn: tuple[Any, ...]

    @property
    def sigma(self) -> NoiseMap:
        """Noise map ``(B, 1, H, W)`` of all faults together; their noises are independent."""
        parts = [
            (share[:, None] * drawn.sigma).square()
            for share, drawn in zip(self.regions.unbind(1), self.drawn, strict=False)
        ]
        return torch.stack(parts).sum(0).sqrt()

    @property
    def mask(self) -> NoiseMap:
        """How far each pixel is degraded, ``(B, 1, H, W)``."""
        shares = zip(self.regions.unbind(1), self.drawn, strict=False)  # the last region has no fault
        return torch.stack([share[:, None] * drawn.mask for share, drawn in shares]).amax(0)
