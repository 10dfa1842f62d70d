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
    """

    image: ImageBatch
    trust: NoiseMap


class Refiner(Protocol):
    """A generative last step, anchored to the restored image.

    Laws (``tests/refine/test_flow.py``): shape and dtype are kept, any height and width are accepted, the same anchor
    gives the same result, and low frequencies stay the anchor's. How much of the change is used is the caller's
    choice: ``anchor + strength * (refined - anchor)``, strength 0 being the anchor to the last bit.
    """

    def refine(self, anchor: ImageBatch) -> Refined:
        """Refine ``anchor`` ``(B, C, H, W)``, in the working scale of the refiner's modality."""

    def forward(self, image: ImageBatch) -> ImageBatch:
        """``image + trust * (refined - image)``: what a bundle's network gives."""
