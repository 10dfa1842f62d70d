"""The contract of a refiner: it starts from the restored image, and says per pixel how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from monai_sasm.types import ImageBatch, NoiseMap


@dataclass(frozen=True)
class Refined:
    """What a refiner made of an anchor.

    Args:
        image: ``(B, C, H, W)``, the refined image before trust is applied.
        trust: ``(B, 1, H, W)`` in [0, 1]; 0 keeps the anchor's pixel.
        grain: ``(B, C, H, W)``, what is added on top whatever the trust: measured, not drawn. ``None`` for nothing.
    """

    image: ImageBatch
    trust: NoiseMap
    grain: ImageBatch | None = None

    def change(self, anchor: ImageBatch) -> ImageBatch:
        """``trust * (image - anchor) + grain``."""
        drawn = self.trust * (self.image - anchor)
        return drawn if self.grain is None else drawn + self.grain


class Refiner(Protocol):
    """A generative last step, anchored to the restored image.

    Laws (``tests/refine/test_flow.py``): shape and dtype are kept, any height and width are accepted, the same anchor
    gives the same result, and low frequencies stay the anchor's. How much of the change is used is the caller's
    choice: ``anchor + strength * change``, strength 0 being the anchor to the last bit.
    """

    def refine(self, anchor: ImageBatch, source: ImageBatch | None = None) -> Refined:
        """Refine ``anchor`` ``(B, C, H, W)``, in the working scale of the refiner's modality.

        ``source``, of the same shape, is the image from which the anchor was restored; a refiner may do without.
        """

    def forward(self, image: ImageBatch) -> ImageBatch:
        """``image + trust * (refined - image)``: what a bundle's network gives."""
